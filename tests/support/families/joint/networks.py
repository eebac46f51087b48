"""Tiny networks of every class of joint attention that NASA steers, with random weights: `network("Krea 2")`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import comfy.model_patcher
import comfy.nested_tensor
import comfy.sample
import comfy.supported_models as supported
import comfy.supported_models_base
import comfy.utils
import pytest
import torch
from comfy.ldm.chroma_radiance.model import ChromaRadianceParams

from ..base import CONTEXT, Condition, build, conditioning, draw, padding_mask
from .flux import _CHROMA, _FLUX, _FLUX_2
from .lumina import _LUMINA, _Z_IMAGE
from .minimax_h3 import AUDIO, MINIMAX, PICTURE, SOUND, VIDEO, rope_frequencies, text_with_tags
from .qwen_image import _QWEN
from .sd3 import _SD3, _adjust

Make = Callable[[torch.Generator, int], Condition]
_HUNYUAN: dict[str, Any] = {
    **_FLUX, "image_model": "hunyuan_video", "byt5": False, "meanflow": False, "use_cond_type_embedding": False,
    "vision_in_dim": None, "meanflow_sum": False,
}  # fmt: skip
_HUNYUAN.pop("txt_ids_dims")
_ROPE_32 = {"hidden_size": 96, "num_attention_heads": 4, "axes_dim_rope": (8, 8, 8), "axes_lens": (300, 64, 64)}


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network, and where its tokens are.

    text: number of text tokens in the joint attention, for a prompt's length.
    grid: of the picture's tokens; `image` is the number of all image tokens if there are more.
    """

    config: str
    arguments: dict[str, Any]
    shape: tuple[int, ...]
    grid: int
    image: int | None = None
    text: Callable[[int], int] = lambda tokens: tokens
    image_first: bool = False
    make: Make
    adjust: Callable[[torch.nn.Module], None] | None = None
    extra: dict[str, Any] | None = None
    """Instead of what the config adds to the arguments."""
    joint_blocks: int = 3
    sound: tuple[int, ...] | None = None
    """Shape of the latent of a sound beside the picture's."""
    rows: int = 2
    """The host's HunyuanVideo takes a mask for one picture only, MiniMax H3 one video."""
    steps: int = 1
    """Only the last of them runs: the first step of some schedules hardly depends on the network."""

    @property
    def exists(self) -> bool:
        """Whether this ComfyUI has it."""
        return hasattr(supported, self.config)

    def condition(self, seed: int, tokens: int = 24) -> Condition:
        return self.make(torch.Generator().manual_seed(seed), tokens)

    def unconditional(self) -> Condition:
        """Of another length where the host cannot run two prompts at once."""
        return self.condition(2, 24 if self.rows > 1 else 30)

    @property
    def _config(self) -> type[comfy.supported_models_base.BASE]:
        config = getattr(supported, self.config)
        return config if self.extra is None else type(self.config, (config,), {"unet_extra_config": self.extra})

    @functools.cached_property
    def patcher(self) -> comfy.model_patcher.ModelPatcher:
        return build(self._config, self.arguments, adjust=self.adjust)

    def stored_as(self, dtype: torch.dtype, computed_in: torch.dtype | None) -> comfy.model_patcher.ModelPatcher:
        """The same network with its weights in another dtype."""
        config = self._config(dict(self.arguments))
        config.set_inference_dtype(dtype, computed_in)
        model = config.get_model({}, "", device="cpu").eval()
        model.diffusion_model.load_state_dict(self.patcher.model.diffusion_model.state_dict())
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    def sample(self, patcher, positive: Condition, other: Condition, *, cfg: float = 1.0, **settings) -> torch.Tensor:
        """One step of the host's KSampler, so linear in what the network returns; settings are added to the positive
        prompt."""
        latent = torch.zeros(self.rows, *self.shape)
        if self.sound is not None:
            latent = comfy.nested_tensor.NestedTensor([latent, torch.zeros(self.rows, *self.sound)])
        noise = comfy.sample.prepare_noise(latent, 7)
        prompts = conditioning(positive, **settings), conditioning(other)
        out = comfy.sample.sample(
            patcher, noise, self.steps, cfg, "lcm", "simple", *prompts, latent, start_step=self.steps - 1, seed=7,
            disable_pbar=True,
        )  # fmt: skip
        return out if self.sound is None else comfy.utils.pack_latents(out.unbind())[0]


def _plain(width: int = CONTEXT, **more: int) -> Make:
    """`more`: settings with their widths."""

    def make(generator: torch.Generator, tokens: int) -> Condition:
        return {"context": draw(generator, 1, tokens, width), **{k: draw(generator, 1, w) for k, w in more.items()}}

    return make


def _masked(padding: int = 0, width: int = CONTEXT, **more: int) -> Make:
    def make(generator: torch.Generator, tokens: int) -> Condition:
        return {**_plain(width, **more)(generator, tokens), "attention_mask": padding_mask(tokens, padding, 1)}

    return make


def _with_llama(generator: torch.Generator, tokens: int) -> Condition:
    condition = _plain(pooled_output=32)(generator, tokens)
    return {**condition, "conditioning_llama3": draw(generator, 1, 3, tokens + 2, 40)}


_POOLED = _plain(pooled_output=32)
_RADIANCE = ChromaRadianceParams.__dataclass_fields__
"""Older hosts have fewer."""
NETWORKS: dict[str, Network] = {
    "SD3": Network(config="SD3", arguments=_SD3, shape=(16, 12, 16), grid=48, make=_POOLED, adjust=_adjust),
    "SD3.5 medium": Network(
        config="SD3", arguments={**_SD3, "x_block_self_attn_layers": [0, 1]}, shape=(16, 12, 16), grid=48,
        make=_POOLED, adjust=_adjust,
    ),
    "Flux": Network(
        config="Flux", arguments={**_FLUX, "guidance_embed": True}, shape=(16, 12, 16), grid=48, make=_POOLED,
        joint_blocks=4,
    ),
    "Flux schnell": Network(
        config="FluxSchnell", arguments={**_FLUX, "guidance_embed": False}, shape=(16, 12, 16), grid=48, make=_POOLED,
        joint_blocks=4,
    ),
    "Flux 2": Network(
        config="Flux2", arguments=_FLUX_2, shape=(128, 6, 8), grid=48, text=lambda tokens: 512, make=_POOLED,
        joint_blocks=4,
    ),
    "LongCat-Image": Network(
        config="LongCatImage", shape=(16, 12, 16), grid=48, make=_plain(), joint_blocks=4,
        arguments={**_FLUX, "guidance_embed": False, "vec_in_dim": None, "txt_ids_dims": [1, 2]},
    ),
    "Chroma": Network(config="Chroma", arguments=_CHROMA, shape=(16, 12, 16), grid=48, make=_POOLED, joint_blocks=4),
    "Chroma Radiance": Network(
        config="ChromaRadiance", shape=(3, 24, 32), grid=48, make=_POOLED, joint_blocks=4,
        arguments={
            **_CHROMA, "image_model": "chroma_radiance", "in_channels": 3, "out_channels": 3, "patch_size": 4,
            "nerf_hidden_size": 16, "nerf_mlp_ratio": 2, "nerf_depth": 1, "nerf_max_freqs": 4, "nerf_tile_size": 0,
            "nerf_final_head_type": "conv", "nerf_embedder_dtype": torch.float32, "use_x0": False,
            **({"use_sequential_txt_ids": True} if "use_sequential_txt_ids" in _RADIANCE else {}),
        },
    ),
    "Qwen-Image": Network(
        config="QwenImage", arguments=_QWEN, shape=(16, 1, 12, 16), grid=48, make=_masked(padding=3),
    ),
    "Mage-Flow": Network(
        config="MageFlow", shape=(128, 6, 8), grid=48, make=_masked(padding=3),
        arguments={**_QWEN, "image_model": "mage_flow", "in_channels": 128, "out_channels": 128},
    ),
    "Lumina 2": Network(config="Lumina2", arguments=_LUMINA, shape=(16, 12, 16), grid=48, make=_plain()),
    "Z-Image": Network(
        config="ZImage", arguments=_Z_IMAGE, shape=(16, 12, 16), grid=48, image=64, make=_plain(),
        text=lambda tokens: -(-tokens // 32) * 32,
    ),
    "Z-Image in pixel space": Network(
        config="ZImagePixelSpace", shape=(3, 24, 32), grid=48, image=64, make=_plain(),
        text=lambda tokens: -(-tokens // 32) * 32,
        arguments={
            **_Z_IMAGE, "image_model": "zimage_pixel", "in_channels": 3, "patch_size": 4, "decoder_hidden_size": 16,
            "decoder_num_res_blocks": 1, "decoder_max_freqs": 4,
        },
    ),
    "HunyuanVideo": Network(
        config="HunyuanVideo", arguments={**_HUNYUAN, "patch_size": [1, 2, 2], "guidance_embed": True},
        shape=(16, 2, 8, 12), grid=48, make=_masked(padding=3, pooled_output=32), joint_blocks=4, rows=1,
    ),
    "HunyuanImage 2.1": Network(
        config="HunyuanImage21", shape=(64, 6, 8), grid=48, make=_masked(padding=3), joint_blocks=4, rows=1,
        arguments={
            **_HUNYUAN, "in_channels": 64, "out_channels": 64, "vec_in_dim": None, "patch_size": [1, 1],
            "axes_dim": [8, 8], "guidance_embed": False,
        },
    ),
    "AuraFlow": Network(
        config="AuraFlow", shape=(4, 12, 16), grid=48, text=lambda tokens: tokens + 8, make=_plain(), joint_blocks=4,
        arguments={
            "in_channels": 4, "out_channels": 4, "dim": 64, "n_layers": 4, "n_double_layers": 2, "n_heads": 4,
            "global_conddim": 64, "cond_seq_dim": CONTEXT, "max_seq": 1024,
        },
    ),
    "OmniGen 2": Network(
        config="Omnigen2", shape=(16, 12, 16), grid=48, make=_masked(),
        arguments={
            **_ROPE_32, "image_model": "omnigen2", "num_layers": 3, "num_refiner_layers": 1, "num_kv_heads": 2,
            "text_feat_dim": CONTEXT,
        },
    ),
    "Boogu-Image": Network(
        config="Boogu", shape=(16, 12, 16), grid=48, make=_masked(), joint_blocks=4,
        arguments={
            **_ROPE_32, "image_model": "boogu", "num_layers": 2, "num_double_stream_layers": 2, "num_refiner_layers": 1,
            "num_kv_heads": 2, "instruction_feat_dim": CONTEXT,
        },
    ),
    "CogVideoX": Network(
        config="CogVideoX_T2V", shape=(16, 2, 8, 12), grid=48, make=_plain(), steps=2,
        arguments={
            "image_model": "cogvideox", "num_attention_heads": 4, "attention_head_dim": 16, "time_embed_dim": 32,
            "text_embed_dim": CONTEXT, "num_layers": 3, "use_rotary_positional_embeddings": True,
        },
    ),
    "PixelDiT": Network(
        config="PixelDiTT2I", shape=(3, 24, 32), grid=48, make=_plain(),
        arguments={
            "image_model": "pixeldit_t2i", "num_groups": 4, "hidden_size": 64, "pixel_hidden_size": 8,
            "pixel_attn_hidden_size": 32, "pixel_num_groups": 4, "patch_depth": 3, "pixel_depth": 1, "patch_size": 4,
            "txt_embed_dim": CONTEXT,
        },
    ),
    "Krea 2": Network(
        config="Krea2", shape=(16, 1, 12, 16), grid=48, make=_plain(),
        arguments={
            "image_model": "krea2", "features": 128, "tdim": 32, "txtdim": 12, "heads": 4, "kvheads": 2, "layers": 3,
            "txtlayers": 4, "txtheads": 2, "txtkvheads": 2,
        },
    ),
    "MiniMax H3": Network(
        config="MiniMaxH3", arguments=MINIMAX, shape=VIDEO, sound=AUDIO, grid=PICTURE + SOUND, rows=1,
        make=lambda generator, tokens: text_with_tags(generator, tokens, 1, 3), adjust=rope_frequencies,
    ),
    "Ideogram 4": Network(
        config="Ideogram4", shape=(128, 6, 8), grid=48, make=_masked(padding=3),
        arguments={"image_model": "ideogram4", "num_layers": 3},
        extra={
            "num_attention_heads": 2, "attention_head_dim": 32, "intermediate_size": 96, "adaln_dim": 16,
            "llm_features_dim": CONTEXT, "rope_theta": 5000000, "mrope_section": [6, 5, 5], "norm_eps": 1e-5,
        },
    ),
    "Lens": Network(
        config="Lens", shape=(128, 6, 8), grid=48, image_first=True, make=_masked(padding=3),
        arguments={
            "image_model": "lens", "in_channels": 128, "out_channels": 32, "num_layers": 3, "attention_head_dim": 16,
            "num_attention_heads": 4, "enc_hidden_dim": 12, "axes_dims_rope": (4, 6, 6),
        },
    ),
    "JoyImage": Network(
        config="JoyImage", shape=(16, 1, 12, 16), grid=48, image_first=True, make=_plain(),
        arguments={
            "image_model": "joyimage", "hidden_size": 256, "num_attention_heads": 2, "text_dim": CONTEXT,
            "num_layers": 3,
        },
    ),
    "Mochi": Network(
        config="GenmoMochi", shape=(12, 2, 8, 12), grid=48, image_first=True, make=_masked(padding=3),
        text=lambda tokens: tokens - 3,
        arguments={
            "image_model": "mochi_preview", "depth": 3, "patch_size": 2, "num_heads": 4, "hidden_size_x": 64,
            "hidden_size_y": 32, "mlp_ratio_x": 192.0, "mlp_ratio_y": 4.0, "learn_sigma": False, "in_channels": 12,
            "qk_norm": True, "qkv_bias": False, "out_bias": True, "attn_drop": 0.0, "patch_embed_bias": True,
            "posenc_preserve_area": True, "timestep_mlp_bias": True, "attend_to_padding": False,
            "timestep_scale": 1000.0, "use_t5": True, "t5_feat_dim": CONTEXT, "t5_token_length": 256,
            "rope_theta": 10000.0,
        },
    ),
    "HiDream-I1": Network(
        config="HiDream", shape=(16, 12, 16), grid=48, image_first=True, make=_with_llama, joint_blocks=4,
        text=lambda tokens: tokens + 2 * (tokens + 2),
        arguments={
            "image_model": "hidream", "attention_head_dim": 16, "axes_dims_rope": [4, 6, 6],
            "caption_channels": [CONTEXT, 40], "max_resolution": [128, 128], "in_channels": 16, "out_channels": 16,
            "llama_layers": [0, 1, 2, 2], "num_attention_heads": 4, "num_routed_experts": 2,
            "num_activated_experts": 1, "num_layers": 2, "num_single_layers": 2, "patch_size": 2, "text_emb_dim": 32,
        },
    ),
}  # fmt: skip


def network(name: str) -> Network:
    if not NETWORKS[name].exists:
        pytest.skip("not in this ComfyUI")
    return NETWORKS[name]


def all_networks(in_the_gate: Collection[str]) -> list[Any]:
    """The networks as parameters of a test; all others in the full run only."""
    return [name if name in in_the_gate else pytest.param(name, marks=pytest.mark.full) for name in NETWORKS]
