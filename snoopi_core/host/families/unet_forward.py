"""Cross-attentions of a UNet whose forward another node has replaced.

With a patch at its address, the host never calls a cross-attention's forward, so such a node would do nothing and what
it changed elsewhere (more rows of text, for example) would be read wrongly. There, NASA acts between the projections
that the other node's forward uses: Q comes from to_q, and Z goes to to_out.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from .base import Call, Grid, Options, Term
from .forwards import Forward, bypassed, has_another_forward, replaced_forwards
from .unet_layer import Address, UNetLayer, attend


@contextlib.contextmanager
def steered_forwards(
    layers: Mapping[Address, UNetLayer], call: Call, options: Options
) -> Iterator[list[SteeredForward]]:
    """Steer these layers through their own forwards; `options` are the call's transformer_options."""
    steered = [SteeredForward(address, layer, call, options) for address, layer in layers.items()]
    with replaced_forwards([pair for each in steered for pair in each.replaced()]):
        yield steered


def replaced_layers(layers: Mapping[Address, UNetLayer]) -> dict[Address, UNetLayer]:
    """The layers whose forward another node has replaced."""
    return {address: each for address, each in layers.items() if has_another_forward(each.transformer.attn2)}


class SteeredForward:
    """Steers one cross-attention: its methods temporarily replace the forwards of the attention and two projections."""

    def __init__(self, address: Address, layer: UNetLayer, call: Call, options: Options) -> None:
        self.address, self.layer, self.call, self.options = address, layer, call, options
        self.attention = layer.transformer.attn2
        self.own = tuple(each.forward for each in (self.attention, self.attention.to_q, self.attention.to_out))
        self.q: torch.Tensor | None = None
        self.is_steered = False

    def replaced(self) -> list[tuple[torch.nn.Module, Forward]]:
        return [
            (self.attention, self.forward),
            (self.attention.to_q, self.query),
            (self.attention.to_out, self.output),
        ]

    def forward(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self.is_steered = False
        out = self.own[0](*args, **kwargs)
        if not self.is_steered:
            raise bypassed(self.layer.block)
        return out

    def query(self, x: torch.Tensor) -> torch.Tensor:
        self.q = self.own[1](x)
        return self.q

    def output(self, z: torch.Tensor) -> torch.Tensor:
        """The output projection of the steered response, for z (B, N, C) of all rows."""
        if self.q is None or self.q.shape[:2] != z.shape[:2]:
            raise bypassed(self.layer.block)
        q_pos = self.call.select(self.q)
        options = {**self.options, "n_heads": self.attention.heads, "attn_precision": self.attention.attn_precision}

        def respond(term: Term) -> torch.Tensor:
            negative = self.layer.keys_values_of(term, self.address, self.call, q_pos.shape[0])
            return attend(q_pos, *negative, options)

        def share(term: Term) -> torch.Tensor:
            block = self.layer.block
            raise ValueError(
                f"method {term.method.name} needs the prompt's keys and values, but another node has replaced the "
                f"cross-attention of {block.group}.{block.index}. Choose another method, remove that node, or exclude "
                "the block in NASA Apply's blocks"
            )

        def grid() -> Grid:
            if "activations_shape" not in self.options:
                raise ValueError(
                    "NASA cannot use its mask here: the model is compiled, and another node has replaced a "
                    "cross-attention. Disconnect the mask of NASA Apply, or remove one of these nodes"
                )
            height, width = self.options["activations_shape"][-2:]
            return 1, height, width

        z = self.call.steer(z, self.address, respond, grid, share=share)
        self.q, self.is_steered = None, True
        return self.own[2](z)
