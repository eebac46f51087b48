"""PG-SB Loader: only listed names are opened, even if the operating system would accept others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzz_goods import good_files

pytestmark = pytest.mark.host

TRICKS = (
    "", ".", "..", "../secret.safetensors", "../../../../etc/passwd", "/etc/passwd", "sub/../../secret.safetensors",
    "..\\secret.safetensors", "\\\\server\\share\\x.safetensors", "C:\\x.safetensors", "a\0.safetensors",
    "good.safetensors\0", "good.safetensors/", "./good.safetensors", "GOOD.SAFETENSORS", " good.safetensors",
    "x" * 100_000 + ".safetensors", "\n\x1b[31m.safetensors", "file:///etc/passwd", "~/x.safetensors", "$HOME",
    "pickle.ckpt", "None", "pipe.safetensors", "folder.safetensors", "nowhere.safetensors",
    "％2e％2e/secret.safetensors",
)  # fmt: skip


@pytest.fixture(scope="module")
def planted(folder: Path, loras: Path) -> None:
    """Besides the valid files: a pickle, and a pipe, a folder and a broken link with names of models."""
    good_files(folder, loras)
    for place in (folder, loras):
        (place.parent / "secret.safetensors").write_bytes(b"")
        (place / "pickle.ckpt").write_bytes(b"\x80\x04")
        if not (place / "pipe.safetensors").exists():
            os.mkfifo(place / "pipe.safetensors")
            (place / "folder.safetensors").mkdir()
            (place / "nowhere.safetensors").symlink_to(place / "gone")


@pytest.mark.parametrize("name", TRICKS, ids=[repr(name)[:30] for name in TRICKS])
@pytest.mark.parametrize("what", ["ckpt_name", "lora_name"])
def test_tricks(loader: type, planted: None, what: str, name: str) -> None:
    inputs = {"ckpt_name": "good.safetensors", what: name}
    folders = "models/loras" if what == "lora_name" else "models/checkpoints, models/diffusion_models"
    for call in (loader.execute, loader.fingerprint_inputs):
        with pytest.raises(ValueError, match=f"was not found; available: .*{folders}") as caught:
            call(**inputs)
        assert len(str(caught.value)) < 2000
        assert str(caught.value).isprintable()


def test_odd_names_of_files_keep_messages_short(loader: type, folder: Path) -> None:
    odd = folder / "odd"
    odd.mkdir()
    for number in range(50):
        (odd / f"\n\x1b[31m{number}{'x' * 200}.safetensors").write_bytes(b"")
    try:
        with pytest.raises(ValueError, match="was not found") as caught:
            loader.execute("none.safetensors")
        assert len(str(caught.value)) < 2000
        assert str(caught.value).isprintable()
        with pytest.raises(ValueError, match="is empty") as caught:
            loader.execute(next(name for name in loader.define_schema().inputs[0].options if "\n" in name))
        assert str(caught.value).isprintable()
    finally:
        for file in odd.iterdir():
            file.unlink()
        odd.rmdir()


def test_every_spelling_of_a_safetensors_file_is_listed_and_opened(loader: type, folder: Path, loras: Path) -> None:
    """ComfyUI lists `.sft` too, and endings in upper case."""
    good = good_files(folder, loras)
    names = ["upper.SAFETENSORS", "short.sft", "mixed.Sft"]
    for name in names:
        (folder / name).write_bytes(good["own"].read_bytes())
        (loras / name).write_bytes(good["lora"].read_bytes())
    try:
        ckpt_name, lora_name, _ = loader.define_schema().inputs
        for name in names:
            assert name in ckpt_name.options and name in lora_name.options
            assert loader.execute(name, name).result[0].patches
    finally:
        for name in names:
            (folder / name).unlink()
            (loras / name).unlink()
