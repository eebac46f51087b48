"""Small copies of published text encoders: the host's classes at the published depth, 64 channels wide."""

from __future__ import annotations

import io
from typing import Any

import comfy.ops
import comfy.text_encoders.llama as llama
import comfy.text_encoders.qwen3vl as qwen3vl
import comfy.text_encoders.t5 as t5
import sentencepiece
import torch
from small_copies import Weights, resized

WIDTH = 64
_LLAMA = {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 1, "num_key_value_heads": 1}
_UMT5 = {"d_model": WIDTH, "d_ff": 64, "d_kv": 32, "num_heads": 2, "vocab_size": 512}
_VISION = {"hidden_size": 64, "intermediate_size": 64}
_TEXT = ["a photo of a street cafe in the evening, people", "A quiet street in the evening, a cat walks by, cars"]


def _qwen3(published_width: int, name: str) -> dict[str, Any]:
    shape = {"model.layers.0.post_attention_layernorm.weight": [published_width]}
    return {"published": shape, "encoder": {f"{name}_model_config": _LLAMA}}


DECLARED: dict[str, dict[str, Any]] = {
    "qwen3_4b": _qwen3(2560, "qwen3_4b"),
    "qwen3_06b": _qwen3(1024, "qwen3_06b"),
    "qwen25_7b": {
        "published": {"model.layers.0.self_attn.k_proj.bias": [512]},
        "encoder": {"qwen25_7b_model_config": _LLAMA},
        "classes": {
            "comfy.text_encoders.qwen_vl:Qwen2VLVisionTransformer": {
                "hidden_size": 64, "output_hidden_size": WIDTH, "intermediate_size": 64, "num_layers": 1,
            }
        },
    },
    "qwen3vl_4b": {
        "published": {"model.visual.merger.linear_fc2.weight": [2560, 4096]},
        "encoder": {"qwen3vl_4b_model_config": _LLAMA},
        "tables": {
            "comfy.text_encoders.qwen3vl:QWEN3VL_VISION": {
                "qwen3vl_4b": {**_VISION, "depth": 1, "deepstack_visual_indexes": [0]}
            }
        },
    },
    "umt5": {
        "published": {"encoder.block.23.layer.1.DenseReluDense.wi_1.weight": [10240, 4096]},
        "encoder": {"umt5xxl_model_config": _UMT5},
    },
    "gemma3_12b": {
        "encoder": {"_model_config": {**_LLAMA, "vocab_size": 512}},
        "tables": {
            "comfy.text_encoders.llama:GEMMA3_VISION_CONFIG": {
                **_VISION, "num_hidden_layers": 1, "num_attention_heads": 2
            }
        },
    },
}  # fmt: skip
"""What a small copy of each declares (small_copies.py). Qwen's vocabularies are whole, with the host's tokenizers; T5's
and Gemma's are in the file, as published, and small."""


@torch.no_grad()
def encoder(kind: str) -> Weights:
    """The weights of a small copy, random, under the keys of the published file."""
    parts = ("cpu", comfy.ops.disable_weight_init)
    with resized(DECLARED[kind]):
        if kind == "umt5":
            settings = {**_UMT5, "num_layers": 24, "dense_act_fn": "gelu_pytorch_tanh", "is_gated_act": True}
            model = t5.T5({**settings, "model_type": "umt5"}, torch.float16, *parts)
        else:
            classes = {
                "qwen3_4b": llama.Qwen3_4B, "qwen3_06b": llama.Qwen3_06B, "qwen25_7b": llama.Qwen25_7BVLI,
                "qwen3vl_4b": qwen3vl._make_qwen3vl_model("qwen3vl_4b"), "gemma3_12b": llama.Gemma3_12B,
            }  # fmt: skip
            (sizes,) = DECLARED[kind]["encoder"].values()
            model = classes[kind](dict(sizes), torch.float16, *parts)
    weights = _random(model.state_dict())
    if kind == "qwen3vl_4b":
        names = {"model.": "model.language_model.", "visual.": "model.visual."}
        weights = {names[key.partition(".")[0] + "."] + key.partition(".")[2]: w for key, w in weights.items()}
    if kind in ("umt5", "gemma3_12b"):
        weights["spiece_model"] = _tokenizer(has_start=kind == "gemma3_12b")
    return weights


def _random(weights: Weights) -> Weights:
    """Norms near 1, embeddings and biases of a size that keeps hidden states apart, matrices that keep their scale."""
    generator = torch.Generator().manual_seed(5)
    out = {}
    for key, weight in weights.items():
        drawn = torch.randn(weight.shape, generator=generator)
        if "norm" in key:
            drawn = 1 + 0.1 * drawn
        elif weight.ndim > 1 and "embed" not in key and "shared" not in key:
            drawn = drawn / weight[0].numel() ** 0.5
        out[key] = drawn.to(weight.dtype) if weight.is_floating_point() else weight
    return out


def _tokenizer(*, has_start: bool) -> torch.Tensor:
    """A sentencepiece model, as the host keeps it in the file; of characters, which needs no large text."""
    model = io.BytesIO()
    special = {"pad_id": 0, "eos_id": 1, **({"bos_id": 2, "unk_id": 3} if has_start else {"bos_id": -1, "unk_id": 2})}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(_TEXT), model_writer=model, model_type="char", vocab_size=128, hard_vocab_limit=False,
        minloglevel=2, **special,
    )  # fmt: skip
    return torch.frombuffer(bytearray(model.getvalue()), dtype=torch.uint8)
