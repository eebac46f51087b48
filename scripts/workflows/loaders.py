"""The host's loaders of published models, and what a workflow's note says about their files."""

from __future__ import annotations

from collections.abc import Iterable

from scripts.workflows.parts import LOADER, MODEL, PROMPTS, RESULT, TEXT, File, Link, Node

_SIZE = (LOADER[0], 100)


def hub_file(directory: str, repository: str, path: str, name: str = "") -> File:
    """A file of a Hugging Face repository; `name` where it must be renamed."""
    url = f"https://huggingface.co/{repository}/resolve/main/{path}"
    return File(name or path.rpartition("/")[2], directory, url)


def split_file(directory: str, repository: str, name: str) -> File:
    """A file of a repository in the layout of Comfy-Org's."""
    return hub_file(directory, repository, f"split_files/{directory}/{name}.safetensors")


def checkpoint(file: File) -> Node:
    return Node(type="CheckpointLoaderSimple", inputs={"ckpt_name": file.name}, size=_SIZE, files=(file,))


def network(file: File) -> Node:
    inputs = {"unet_name": file.name, "weight_dtype": "default"}
    return Node(type="UNETLoader", inputs=inputs, size=_SIZE, files=(file,))


def lora(file: File, model: Link = MODEL, strength: float = 1.0) -> Node:
    inputs = {"model": model, "lora_name": file.name, "strength_model": strength}
    return Node(type="LoraLoaderModelOnly", inputs=inputs, size=_SIZE, files=(file,))


def clip(file: File, kind: str) -> Node:
    inputs = {"clip_name": file.name, "type": kind, "device": "default"}
    return Node(type="CLIPLoader", inputs=inputs, size=TEXT, files=(file,), group=PROMPTS)


def vae(file: File) -> Node:
    return Node(type="VAELoader", inputs={"vae_name": file.name}, size=(TEXT[0], 60), files=(file,), group=RESULT)


def shift(kind: str, model: Link, value: float) -> Node:
    """The host's change of a flow model's noise schedule; kinds: AuraFlow, SD3."""
    return Node(type=f"ModelSampling{kind}", inputs={"model": model, "shift": value})


def download(files: Iterable[File]) -> str:
    """The note's list of files, each a link."""
    return "\n".join(f"- {_where(file)}" for file in dict.fromkeys(files))


def _where(file: File) -> str:
    # ComfyUI's own notice of missing files offers no download of pickles.
    by_hand = " by hand" if file.name.endswith(".bin") else ""
    return f"[{file.name}]({file.url}){by_hand} into models/{file.directory}, from [its page]({file.page})"
