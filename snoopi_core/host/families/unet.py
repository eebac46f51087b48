"""Stable Diffusion UNets: SD1.x, SD2.x, SDXL and their relatives.

Dimensions: B rows of a call, R positive rows, N image tokens, T text tokens, C = heads x head width.

Instead of a cross-attention's softmax, between its own to_q / to_k / to_v and to_out, the host calls
`transformer_options["patches_replace"]["attn2"][(group, index, depth)]` with (q, k, v, extra_options). This is exactly
where NASA subtracts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import comfy.ldm.modules.attention as attention
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_base import BaseModel
from comfy.patcher_extension import WrapperExecutor, WrappersMP

from ...guidance.blocks import Block
from ...guidance.vsf import share_values
from ...networks import MODELS_WITH_A_PICTURE
from ..conditioning.negative import Negative, check_width
from .base import Attachment, Call, Context, Family, Grid, KeysValues, Options, Term, network_of
from .forwards import has_another_forward
from .unet_forward import replaced_layers, steered_forwards
from .unet_layer import Address, UNetLayer, attend
from .unet_rows import CALL, DOUBT, NUMBERS, OTHERS, follow_rows, followed_call, must_follow

_KINDS = {768: "SD1.5", 1024: "SD2.1", 2048: "SDXL"}
"""Kind of model by width of the text encoder's output."""
_INNER, _FOLLOWED = "snoopi_nasa_inner", "snoopi_nasa_followed"

Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Options], torch.Tensor]


class UNetFamily(Family):
    name = "Stable Diffusion UNets (SD1.x, SD2.x, SDXL)"

    def matches(self, model: BaseModel) -> bool:
        network = network_of(model)
        if not isinstance(network, UNetModel) or not self.layers(model):
            return False
        if type(model).__name__ in MODELS_WITH_A_PICTURE:
            return False
        # Video UNets attend to image embeddings, and their temporal layers have the same addresses as the spatial ones.
        return not any(isinstance(module, attention.SpatialVideoTransformer) for module in network.modules())

    def layers(self, model: BaseModel) -> dict[Address, UNetLayer]:
        unet = network_of(model)
        middle = [] if unet.middle_block is None else [unet.middle_block]
        return {
            (group, index, depth): UNetLayer(Block(group, index), inner)
            for group, blocks in (("input", unet.input_blocks), ("middle", middle), ("output", unet.output_blocks))
            for index, block in enumerate(blocks)
            for transformer in block
            if isinstance(transformer, attention.SpatialTransformer)
            for depth, inner in enumerate(transformer.transformer_blocks)
        }

    def ignores_zeros(self, model: BaseModel, blocks: frozenset[Block]) -> bool:
        # Z- is a mean of the rows of V-, and these are then the projection's bias.
        chosen = [each.transformer.attn2 for each in self.layers(model).values() if each.block in blocks]
        return all(layer.to_v.bias is None for layer in chosen)

    def kind(self, model: BaseModel) -> str | None:
        return _KINDS.get(self._text_width(model))

    def check(self, model: BaseModel, negative: Negative) -> None:
        check_width(negative, self._text_width(model))

    def context(
        self, model: BaseModel, negative: Negative, x: torch.Tensor, sigma: torch.Tensor, options: Options
    ) -> Context:
        # The dtype of activations: weights may be stored in another one and cast layer by layer.
        dtype = model.manual_cast_dtype or model.get_dtype()
        return Context(tokens=negative.embedding.to(x.device, dtype, non_blocking=True))

    def attach(self) -> Attachment:
        return UNetAttachment(self)

    def _text_width(self, model: BaseModel) -> int:
        return next(iter(self.layers(model).values())).transformer.attn2.to_k.in_features


class _SteeredAttention:
    """Steers one cross-attention. It is reused, so that a compiled model sees the same object in each call."""

    def __init__(self, address: Address, layer: UNetLayer) -> None:
        self.address, self.layer = address, layer

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, extra_options: Options) -> torch.Tensor:
        """Z of all rows, (B, N, C), for q (B, N, C) and k, v (B, T, C)."""
        call: Call = extra_options[CALL]
        _check_latent(call, extra_options)
        inner: Attention | None = extra_options[_INNER].get(self.address)
        if inner is None:
            self._check_own(q, k)
        z = (inner or attend)(q, k, v, extra_options)
        if (numbers := extra_options.get(NUMBERS)) is not None:
            call = followed_call(call, numbers)
        q_pos = call.select(q)

        def negative(term: Term) -> KeysValues:
            return self.layer.keys_values_of(term, self.address, call, q_pos.shape[0])

        def respond(term: Term) -> torch.Tensor:
            return attend(q_pos, *negative(term), extra_options)

        def share(term: Term) -> torch.Tensor:
            k_neg, v_neg = negative(term)
            keys = torch.cat([call.select(k), k_neg], dim=1)
            return attend(q_pos, keys, share_values(call.select(v), v_neg), extra_options)

        def text() -> torch.Tensor:
            return attend(q_pos, call.select(k), call.select(v), extra_options)

        def grid() -> Grid:
            height, width = extra_options["activations_shape"][-2:]
            return 1, height, width

        # A patch of another node may add to the response, for example that to an image.
        return call.steer(z, self.address, respond, grid, text=None if inner is None else text, share=share)

    def _check_own(self, q: torch.Tensor, k: torch.Tensor) -> None:
        """Check that the layer's own attention is what would run without NASA.

        Raises:
            ValueError: another node has changed it where `_follow_forwards` could not see it.
        """
        is_replaced = not torch.compiler.is_compiling() and has_another_forward(self.layer.transformer.attn2)
        if is_replaced or q.shape[0] != k.shape[0]:
            block = self.layer.block
            raise ValueError(
                f"NASA cannot steer {block.group}.{block.index}: another node replaces its cross-attention while "
                f"the model runs ({q.shape[0]} rows of the picture, {k.shape[0]} of text). Remove that node, or "
                "exclude the block in NASA Apply's blocks"
            )


def _check_latent(call: Call, extra_options: Options) -> None:
    """Check that the network gets the latent of the call, as far as it matters.

    Raises:
        ValueError: another node has divided or resized it between the model and the network.
    """
    size, got = tuple(call.shape[-2:]), tuple(extra_options.get("original_shape", call.shape)[-2:])
    if got == size:
        return
    is_part = any(mine > theirs for mine, theirs in zip(size, got, strict=True))
    if any(term.mask is not None for term in call.terms) or (is_part and not all(call.positive)):
        raise ValueError(
            f"NASA cannot steer this call: another node gives the network a latent of {got[0]} x {got[1]}, a part or "
            f"a resized form of the model's {size[0]} x {size[1]}. Remove that node, or disconnect the mask of NASA "
            "Apply and set cfg to 1"
        )


def _follow_forwards(executor: WrapperExecutor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Wraps the network's forward: another node may have replaced forwards of its layers since the call began."""
    place = next((place for place, each in enumerate(args) if isinstance(each, dict) and CALL in each), None)
    if torch.compiler.is_compiling() or place is None:
        return executor(*args, **kwargs)
    with _following(args[place]) as options:
        for each in options.get(_FOLLOWED, ()):
            each.options = options  # the host writes the size of activations into it
        return executor(*args[:place], options, *args[place + 1 :], **kwargs)


@contextlib.contextmanager
def _following(options: Options) -> Iterator[Options]:
    """Steer layers whose forward another node has replaced through that forward: options without our patches there."""
    attn2: Mapping[tuple, Any] = options.get("patches_replace", {}).get("attn2", {})
    ours = {
        address: patch.layer
        for address, patch in attn2.items()
        if isinstance(patch, _SteeredAttention) and options[_INNER].get(address) is None
    }
    replaced = replaced_layers(ours)
    if not replaced:
        yield options
        return
    kept = {address: patch for address, patch in attn2.items() if address not in replaced}
    options = {**options, "patches_replace": {**options["patches_replace"], "attn2": kept}}
    with steered_forwards(replaced, options[CALL], options) as followed:
        yield {**options, _FOLLOWED: [*options.get(_FOLLOWED, ()), *followed]}


class UNetAttachment:
    def __init__(self, family: UNetFamily) -> None:
        self.family = family
        # By network: a node's output may run in several models at once, for example on several GPUs.
        self._patches: WeakKeyDictionary[UNetModel, dict[Address, _SteeredAttention]] = WeakKeyDictionary()

    def __call__(
        self, model: BaseModel, options: Options, call: Call, proceed: Callable[..., torch.Tensor]
    ) -> torch.Tensor:
        network, layers = network_of(model), self.family.layers(model)
        known = self._patches.setdefault(network, {})
        for address in call.layers:
            # Another patch may have replaced the block for this run.
            if address not in known or known[address].layer != layers[address]:
                known[address] = _SteeredAttention(address, layers[address])
        patches = {address: known[address] for address in call.layers}
        replace: dict[str, Any] = options.get("patches_replace", {})
        attn2: Mapping[tuple, Attention] = replace.get("attn2", {})
        # As in the host, a patch at the exact address has priority over one for the whole block.
        inner = {address: attn2.get(address, attn2.get(address[:2])) for address in patches}
        patched = {**replace, "attn2": {**attn2, **patches}}
        wrappers: dict[str, Any] = options.get("wrappers", {})
        # The last one is the innermost.
        last = {**wrappers.get(WrappersMP.DIFFUSION_MODEL, {}), CALL: [_follow_forwards]}
        wrappers = {**wrappers, WrappersMP.DIFFUSION_MODEL: last}
        options = {**options, "patches_replace": patched, "wrappers": wrappers, CALL: call, _INNER: inner}
        others = options.get("patches", {}).get("attn2_patch")
        is_followed = bool(others) and must_follow(call)
        if is_followed:
            doubt = torch.zeros((), device=call.terms[0].strength.device)
            options |= {"patches": {**options["patches"], "attn2_patch": [follow_rows]}, OTHERS: others, DOUBT: doubt}
        more = {}
        if network is not model.diffusion_model:
            # The host compiles networks without guards on their options, so a graph traced without NASA, or with
            # another node, would be reused. Argument names are guarded, and the network ignores unknown ones.
            more[f"{CALL}_{call.graph_key()}{'_followed' if is_followed else ''}"] = True
        with _following(options) as options:
            out = proceed(options, **more)
        if is_followed and doubt > 0:
            raise ValueError(
                "NASA cannot tell which rows of an attention belong to the prompt: another node repeats them (regional "
                "prompts, for example) and changes their values. Set cfg to 1 and use neither a mask nor a batch of "
                "negatives in NASA Apply, or remove that node or NASA Apply"
            )
        return out
