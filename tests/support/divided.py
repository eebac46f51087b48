"""Small nodes that do what other packs do: prompts for regions inside the network, tiles, and windows of frames."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import SpatialTransformer
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from composed import ALPHA, UNWANTED, _respond, prompt

Split = Callable[[torch.Tensor, Sequence[slice]], torch.Tensor]


def regions(count: int, side: int = 8) -> torch.Tensor:
    """Soft masks that add up to 1, (count, side, side)."""
    drawn = torch.rand(count, side, side, generator=torch.Generator().manual_seed(11), dtype=torch.float64)
    return drawn / drawn.sum(0)


def _at_tokens(mask: torch.Tensor, tokens: int, like: torch.Tensor) -> torch.Tensor:
    """(rows, N, 1) of a square mask (rows, h, w)."""
    return torch.nn.functional.adaptive_avg_pool2d(mask.to(like), round(tokens**0.5)).flatten(1).unsqueeze(-1)


def coupled(
    patcher: ModelPatcher, texts: Sequence[torch.Tensor], masks: torch.Tensor, *, factor: float = 1.0
) -> ModelPatcher:
    """Attention coupling: in each cross-attention, the rows of the prompt once more for each of `texts` (1, T, C), and
    the mean of their outputs, weighted by `masks`, whose first is the prompt's own. `factor` is applied to the queries.
    """

    def repeat(q, k, v, options):
        chunks, times = len(options["cond_or_uncond"]), len(texts) + 1
        parts = []
        for number, own_q, own_k in zip(options["cond_or_uncond"], q.chunk(chunks), k.chunk(chunks), strict=True):
            if number == 1:
                parts.append((own_q, own_k))
            else:
                more = [text.to(own_k).expand(own_k.shape[0], -1, -1) for text in texts]
                parts.append((own_q.repeat(times, 1, 1), torch.cat([own_k, *more])))
        queries, keys = (torch.cat(each) for each in zip(*parts, strict=True))
        return queries * factor, keys, keys

    def merge(out, options):
        times = [1 if number == 1 else len(texts) + 1 for number in options["cond_or_uncond"]]
        rows = out.shape[0] // sum(times)
        weights = _at_tokens(masks, out.shape[1], out).unsqueeze(1)
        parts = out.split([rows * each for each in times])
        return torch.cat(
            [
                part if each == 1 else (part.unflatten(0, (each, rows)) * weights).sum(0)
                for part, each in zip(parts, times, strict=True)
            ]
        )

    out = patcher.clone()
    out.set_model_attn2_patch(repeat)
    out.set_model_attn2_output_patch(merge)
    return out


def coupled_and_steered(
    patcher: ModelPatcher, texts: Sequence[torch.Tensor], masks: torch.Tensor, mask: torch.Tensor | None = None
) -> ModelPatcher:
    """What `coupled` and NASA Apply give together, written out without repeated rows: the sum over all regions of the
    region's mask times (Z+ - alpha Z-).
    """
    out = patcher.clone()
    unet = patcher.model.diffusion_model
    groups = {"input": unet.input_blocks, "middle": [unet.middle_block], "output": unet.output_blocks}
    for group, blocks in groups.items():
        for index, block in enumerate(blocks):
            for part in block:
                if isinstance(part, SpatialTransformer):
                    patch = functools.partial(_couple_and_steer, part, texts, masks, mask)
                    out.set_model_attn2_replace(patch, group, index)
    return out


def _couple_and_steer(transformer, texts, masks, mask, q, k, v, options):
    layer = transformer.transformer_blocks[options["block_index"]].attn2
    weights = _at_tokens(masks, q.shape[1], q)
    place = 1.0 if mask is None else _at_tokens(mask, q.shape[1], q)

    def to_text(own_q, text):
        keys_values = (project(text.to(own_q)).expand(own_q.shape[0], -1, -1) for project in (layer.to_k, layer.to_v))
        return _respond(own_q, *keys_values, layer.heads)

    parts = []
    chunks = len(options["cond_or_uncond"])
    chunked = zip(options["cond_or_uncond"], *(each.chunk(chunks) for each in (q, k, v)), strict=True)
    for number, own_q, own_k, own_v in chunked:
        z = _respond(own_q, own_k, own_v, layer.heads)
        if number == 0:
            away = ALPHA * place * to_text(own_q, prompt(UNWANTED)["context"])
            several = [z, *(to_text(own_q, text) for text in texts)]
            z = sum(weight * (each - away) for weight, each in zip(weights, several, strict=True))
        parts.append(z)
    return torch.cat(parts)


def tiles_of(size: Sequence[int], tile: int) -> list[tuple[slice, slice]]:
    return [(slice(y, y + tile), slice(x, x + tile)) for y in range(0, size[0], tile) for x in range(0, size[1], tile)]


def tiled(
    patcher: ModelPatcher, tile: int, at_once: int, *, passes: Callable[[str], bool] = lambda name: True, shift: int = 0
) -> ModelPatcher:
    """Calls the model on square tiles, `at_once` in a batch: all rows of the first tile, then all of the second.

    Args:
        passes: which of the call's conditionings it passes on, by name; the usual node passes all.
        shift: by how many cells it rolls the latent sideways before, and back after.
    """

    def wrapper(apply_model, args):
        x, timestep = args["input"].roll(shift, -1), args["timestep"]
        out = torch.zeros_like(x)
        tiles = tiles_of(x.shape[-2:], tile)
        for first in range(0, len(tiles), at_once):
            now = tiles[first : first + at_once]
            stacked = torch.cat([x[(..., *each)] for each in now])
            c = {}
            for name, value in args["c"].items():
                if isinstance(value, torch.Tensor):
                    if not passes(name):
                        continue
                    if value.ndim == x.ndim:
                        value = torch.cat([value[(..., *each)] for each in now])
                    else:
                        value = value.repeat(len(now), *(1,) * (value.ndim - 1))
                c[name] = value
            results = apply_model(stacked, timestep.repeat(len(now)), **c).chunk(len(now))
            for each, result in zip(now, results, strict=True):
                out[(..., *each)] = result
        return out.roll(-shift, -1)

    out = patcher.clone()
    out.set_model_unet_function_wrapper(wrapper)
    return out


def in_windows_of_a_batch(patcher: ModelPatcher, length: int, *, tells: bool = True) -> ModelPatcher:
    """Calls the model on windows of the batch's images (its frames), one after the other.

    Args:
        tells: whether it writes the frames' numbers where nodes for animated pictures do.
    """

    def wrapper(executor, model, conditionings, x, timestep, model_options):
        outs = [torch.zeros_like(x) for _ in conditionings]
        for first in range(0, x.shape[0], length):
            frames = list(range(first, first + length))
            options: dict[str, Any] = {**model_options.get("transformer_options", {})}
            if tells:
                options["ad_params"] = {"full_length": x.shape[0], "sub_idxs": frames}
            results = executor(
                model, conditionings, x[frames], timestep[frames], {**model_options, "transformer_options": options}
            )
            for out, result in zip(outs, results, strict=True):
                out[frames] = result
        return outs

    out = patcher.clone()
    out.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "windows", wrapper)
    return out
