"""CLIP's tokenizer without a download: its vocabulary is in the package open_clip_torch.

ComfyUI and transformers use the same byte-pair vocabulary of 49,408 tokens, so the same text gets the same ids in both
(a test compares them).
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import json
import os
import tempfile
from pathlib import Path

from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_TOKENS = 77
N_MERGES = 49152 - 256 - 2


def _merges() -> list[str]:
    """The 48,894 merges of CLIP's byte-pair encoding, best first, as "left right"."""
    spec = importlib.util.find_spec("open_clip")  # located, not imported: its dependencies are not needed
    if spec is None or spec.origin is None:
        raise ValueError(
            "CLIP's vocabulary was not found: it is in the package open_clip_torch; "
            "install the extra `training` of this project"
        )
    packed = Path(spec.origin).with_name("bpe_simple_vocab_16e6.txt.gz").read_bytes()
    lines = gzip.decompress(packed).decode("utf-8").split("\n")
    return lines[1 : 1 + N_MERGES]  # the first line is the version


def _vocabulary(merges: list[str]) -> dict[str, int]:
    """Map tokens to ids: bytes, bytes at the end of a word, merges, then the start and end tokens (49406, 49407)."""
    symbols = list(bytes_to_unicode().values())  # in the order of CLIP's vocabulary (GPT-2's table)
    ends, joined = [symbol + "</w>" for symbol in symbols], [merge.replace(" ", "") for merge in merges]
    return {token: number for number, token in enumerate([*symbols, *ends, *joined, BOS, EOS])}


@functools.cache
def clip_tokenizer(pad_token: str = EOS) -> CLIPTokenizer:
    """CLIP's tokenizer with 77 tokens. Stable Diffusion 1.x pads with the end token, 2.x with "!" (id 0).

    Raises:
        ValueError: open_clip_torch is not installed.
    """
    merges = _merges()
    with tempfile.TemporaryDirectory() as folder:
        vocab_file, merges_file = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab_file.write_text(json.dumps(_vocabulary(merges), ensure_ascii=False), encoding="utf-8")
        merges_file.write_text("\n".join(["#version: 0.2", *merges, ""]), encoding="utf-8")
        special = {"bos_token": BOS, "eos_token": EOS, "unk_token": EOS, "pad_token": pad_token}
        config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": True, **special}
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        return CLIPTokenizer.from_pretrained(os.fspath(folder), local_files_only=True)
