"""Expected results of the nodes from independent code: diffusers in fp64 with explicit softmax.

Nothing of `snoopi_core` is used here.
Dimensions: B batch rows, N image tokens, T text tokens, H heads, D head width.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from written_out import VSF_BETA, by_nag, by_orthogonal

Seen = tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]
"""Of a cross-attention: Z+, the Z- of each subtraction there, and what is left of Z+."""
Condition = dict[str, torch.Tensor]
"""`context` (B, T, C), and for SDXL `pooled` (B, P) and `time_ids` (B, 6)."""


@dataclass(frozen=True)
class Subtraction:
    """One negative prompt: (B, T, C), its strength, the layers (by name, None for all) and the place where it acts.

    mask: (B or 1, h, w), sides that are multiples of those of every attention.
    """

    context: torch.Tensor
    alpha: float
    layers: Sequence[str] | None = None
    mask: torch.Tensor | None = None
    method: str = "NASA"
    after_projection: bool = False
    """A wrong formula, O(Z+) - alpha O(Z-), which takes the bias off as well: tests of the tests."""

    def weight(self, tokens: int) -> float | torch.Tensor:
        """The mean of the mask over the square that each token covers, (B, N, 1); 1 without a mask."""
        if self.mask is None:
            return 1.0
        height, width = self.mask.shape[-2:]
        cell = round((height * width / tokens) ** 0.5)
        cells = self.mask.double().reshape(-1, height // cell, cell, width // cell, cell)
        return cells.mean(dim=(2, 4)).reshape(-1, tokens, 1)


class WrittenOutAttention:
    """A diffusers attention processor: Z = softmax(Q K+^T / sqrt D) V+ - sum alpha softmax(Q K-^T / sqrt D) V-."""

    def __init__(self, name: str) -> None:
        self.layer = name
        self.subtractions: Sequence[Subtraction] = ()
        self.seen: list[Seen] = []

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        assert attention_mask is None
        is_cross = encoder_hidden_states is not None
        q = attn.to_q(hidden_states)
        z = self._respond(attn, q, encoder_hidden_states if is_cross else hidden_states)
        if is_cross:
            z_pos, responses = z, []
            for subtraction in self.subtractions:
                if subtraction.layers is None or self.layer in subtraction.layers:
                    context = subtraction.context.to(q).expand(q.shape[0], -1, -1)
                    responses.append(self._respond(attn, q, context))
                    change = self._change(attn, q, z_pos, encoder_hidden_states, context, responses[-1], subtraction)
                    z = z + subtraction.weight(z.shape[1]) * change
            self.seen.append((z_pos, responses, z))
            bias = sum(each.alpha for each in self.subtractions if each.after_projection) * attn.to_out[0].bias
            return torch.nn.functional.linear(z, attn.to_out[0].weight, attn.to_out[0].bias) - bias
        return torch.nn.functional.linear(z, attn.to_out[0].weight, attn.to_out[0].bias)

    def _change(self, attn, q, z_pos, prompt, context, z_neg, subtraction):
        """What the method adds to Z+; settings as in `written_out`."""
        alpha = subtraction.alpha
        if subtraction.method == "NASA":
            return -alpha * z_neg
        if subtraction.method == "NAG":
            return by_nag(z_pos, z_neg, alpha) - z_pos
        if subtraction.method == "orthogonal":
            return by_orthogonal(z_pos, z_neg, alpha) - z_pos
        assert subtraction.method == "VSF"
        both = torch.cat([prompt, context], dim=1)
        k, v, tokens = attn.to_k(both), attn.to_v(both), prompt.shape[1]
        q, k, v = (each.unflatten(-1, (attn.heads, -1)).transpose(1, 2) for each in (q, k, v))
        logits = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
        logits[..., tokens:] -= VSF_BETA
        v[..., tokens:, :] *= -alpha
        return (logits.softmax(-1) @ v).transpose(1, 2).flatten(2) - z_pos

    @staticmethod
    def _respond(attn, q, context):
        b, n, c = q.shape
        heads = attn.heads
        q, k, v = (
            tensor.reshape(b, -1, heads, c // heads).transpose(1, 2)
            for tensor in (q, attn.to_k(context), attn.to_v(context))
        )
        logits = q @ k.transpose(-1, -2) / (c // heads) ** 0.5
        weights = torch.exp(logits - logits.amax(-1, keepdim=True))
        weights = weights / weights.sum(-1, keepdim=True)
        return (weights @ v).transpose(1, 2).reshape(b, n, c)


class Reference:
    """A network in fp64 and the formulas around it."""

    def __init__(self, unet: UNet2DConditionModel, prediction_type: str) -> None:
        self.unet = copy.deepcopy(unet).double().eval()
        self.prediction_type = prediction_type
        self.alphas_cumprod = DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
        ).alphas_cumprod
        self.processors = {
            name: WrittenOutAttention(name.removesuffix(".processor")) for name in self.unet.attn_processors
        }
        self.unet.set_attn_processor(dict(self.processors))

    def cross_attention_names(self) -> list[str]:
        return [processor.layer for processor in self.processors.values() if processor.layer.endswith("attn2")]

    @torch.no_grad()
    def output(
        self, x: torch.Tensor, t: int, condition: Condition, subtractions: Sequence[Subtraction] = ()
    ) -> torch.Tensor:
        """The network's output for a unit-variance input x, (B, C, h, w) fp64."""
        self.seen: list[Seen] = []
        for processor in self.processors.values():
            processor.subtractions, processor.seen = subtractions, self.seen
        rows = x.shape[0]
        added = None
        if "pooled" in condition:
            added = {
                "text_embeds": condition["pooled"].double().expand(rows, -1),
                "time_ids": condition["time_ids"].expand(rows, -1),
            }
        context = condition["context"].double().expand(rows, -1, -1)
        return self.unet(x.double(), t, encoder_hidden_states=context, added_cond_kwargs=added).sample

    def alpha_sigma(self, t: int) -> tuple[float, float]:
        """alpha_t, sigma_t of diffusers' own schedule."""
        bar = float(self.alphas_cumprod[t])
        return bar**0.5, (1.0 - bar) ** 0.5

    def x0(
        self,
        x: torch.Tensor,
        t: int,
        positive: Condition,
        subtractions: Sequence[Subtraction] = (),
        *,
        negative: Condition | None = None,
        cfg: float = 1.0,
    ) -> torch.Tensor:
        """x0 by the formula of the prediction type; classifier-free guidance between two outputs when cfg is not 1."""
        output = self.output(x, t, positive, subtractions)
        if negative is not None:
            unguided = self.output(x, t, negative)
            output = unguided + cfg * (output - unguided)
        alpha, sigma = self.alpha_sigma(t)
        if self.prediction_type == "epsilon":
            return (x.double() - sigma * output) / alpha
        if self.prediction_type == "v_prediction":
            return alpha * x.double() - sigma * output
        return output


def relative_error(got: torch.Tensor, expected: torch.Tensor) -> float:
    """|got - expected| / |expected|, Frobenius norms."""
    got, expected = got.detach().double(), expected.detach().double()
    return float((got - expected).norm() / expected.norm())
