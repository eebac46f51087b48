"""Attach NASA to networks of joint attention, where text and image are the tokens of one attention.

    Z = Z+ - alpha m_N Z_N             m_N Z_N = sum over n in N of e^n v_n / (e^N + e^I)
    e^S = sum over keys j in S of exp(q k_j / sqrt(D)),   P, N, I: positive's text, negative's text, image

The paper (SNOOPI, arXiv 2412.02687, Algorithm 1) subtracts Z-, the negative's attention of its own. In joint attention
text shares a softmax with the image; m_N Z_N is exactly the part of the text in what the image would attend to if the
negative were the prompt. Without image keys m_N is 1, and this is the paper's Z+ - alpha Z-.
What the other methods take for Z- is in `share.py`.

Z+ is the host's own call, unchanged for all rows; P's queries are not touched. N has a stream of its own through the
network: its queries attend to N and I, at its own positions and with its own mask; timestep and pooled modulation are
the positive's. During one call of the network, each joint block's forward is replaced on the instance:

    1. The host's forward of the block runs as ever, with an `optimized_attention_override` in its options.
    2. Inside that override, the same forward runs again for the negative's text, with the image's keys and values
       added in an override of its own. Its result is the negative's text for the next block.

No forward of the host is copied, and none stays replaced after the call.

Dimensions: B rows of a call, R rows of its positive ones, P, N and I tokens, C channels.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import torch
from comfy.model_base import BaseModel

from ..base import Call, Grid, Options, network_of
from .block import JointLayer
from .share import DEFAULT_WAYS, Way
from .steered_block import SteeredBlock
from .stream import Pass


class JointNetworks(Protocol):
    """What an attachment asks of a JointFamily."""

    target_first: bool

    def layers(self, model: BaseModel) -> dict[int, JointLayer]: ...

    def grid(self, network: Any, shape: torch.Size) -> Grid: ...

    def image_tokens(self, network: Any, grid: Grid) -> int | None: ...


class JointAttachment:
    def __init__(self, family: JointNetworks, ways: Sequence[Way] = DEFAULT_WAYS) -> None:
        self.family, self.ways = family, ways
        # By network: a node's output may run in several models at once, for example on several GPUs.
        self._known: WeakKeyDictionary[torch.nn.Module, tuple[Pass, dict[int, SteeredBlock]]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        network, layers = network_of(model), self.family.layers(model)
        state, known = self._known.setdefault(network, (Pass(), {}))
        state.ways = self.ways
        state.names = [f"{each.block.group}.{each.block.index}" for each in layers.values()]
        grid = self.family.grid(network, call.shape)
        state.begin(call, network, grid, self.family.image_tokens(network, grid), self.family.target_first)
        last = max(call.layers)
        try:
            with contextlib.ExitStack() as stack:
                # Blocks that are not chosen still carry the negative's stream to those that are.
                for key in range(last + 1):
                    steered = known.setdefault(key, SteeredBlock(key, state))
                    stack.enter_context(steered.attached_to(layers[key]))
                return proceed(options)
        finally:
            state.end()
            if new := state.used - call.said:
                call.said.update(new)
                ways = ", ".join(sorted(new))
                logging.info("NASA Apply: the negative's share of the attention is computed by %s", ways)
