"""The templates for current models and one's own LoRAs, run in a real server with small copies of their files.

Real: the files' names and folders, the host's loaders, what they recognise, every class (network, text encoder,
tokenizer, VAE), LoRAs, all settings of the template. Small: the widths and numbers of layers of networks, the widths of
text encoders, Gemma's and T5's vocabularies, VAEs, and pictures (support/small_published.py). Weights are random, but
those of one's own LoRAs, which the trainer makes with its shipped recipes.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from effort import some
from live_client import Outcome, load_prompt
from live_server import Server
from reference import relative_error
from safetensors.torch import load_file
from small_checkpoints import write_teacher
from small_published import write_files
from templates import NAMES, api_file, named

from snoopi_core.host.one_step import _SEED_STEP
from training.evaluate.generate.student import load_student
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.models.loading import load_backbone

pytestmark = [pytest.mark.server, pytest.mark.slow]

ATTENTIONS = {
    "Anima Turbo": ["3 of 3"],
    "FLUX.2 Klein": ["4 of 4"],
    "Krea 2 Turbo": ["3 of 3"],
    "LTX-2.3": ["4 of 4"],
    "Qwen-Image": ["3 of 3"],
    "Wan 2.2 14B": ["3 of 3", "3 of 3"],
    "My SD1.5 LoRA": ["16 of 16"],
    "My SDXL LoRA": ["70 of 70"],
    "Z-Image-Turbo": ["3 of 3"],
}
"""What the log says of each network: in how many of its attentions NASA acted."""
CLASSES = {
    "Anima Turbo": {"AnimaTEModel_", "Anima", "WanVAE"},
    "FLUX.2 Klein": {"Flux2TEModel_", "Flux2", "AutoencoderKL"},
    "Krea 2 Turbo": {"Krea2TEModel_", "Krea2", "WanVAE"},
    "LTX-2.3": {"LTXAVTEModel_", "LTXAV", "VideoVAE", "AudioVAE"},
    "Qwen-Image": {"QwenImageTEModel_", "QwenImage", "WanVAE"},
    "Wan 2.2 14B": {"WanTEModel", "WAN21", "WanVAE"},
    "My SD1.5 LoRA": {"SD1ClipModel", "BaseModel", "AutoencodingEngine"},
    "My SDXL LoRA": {"SDXLClipModel", "SDXL", "AutoencodingEngine"},
    "Z-Image-Turbo": {"ZImageTEModel_", "Lumina2", "AutoencodingEngine"},
}
"""What the host makes of the published files: text encoder, network, VAEs."""
SIDE, FRAMES = 128, 9
SMALLER = {"width": SIDE, "height": SIDE, "length": FRAMES, "frames_number": FRAMES}
Prompt = dict[str, dict[str, Any]]


def small(prompt: Prompt) -> Prompt:
    """The same prompt for a small picture, whose latents are saved, too."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        node["inputs"] |= {key: value for key, value in SMALLER.items() if key in node["inputs"]}
    decoded = [
        node["inputs"]["samples"] for node in prompt.values() if re.match("VAEDecode|LTXVAudioVAED", node["class_type"])
    ]
    for index, samples in enumerate(decoded):
        save = {"samples": samples, "filename_prefix": "latents/small"}
        changed[f"90{index}"] = {"class_type": "SaveLatent", "inputs": save}
    return changed


def with_alpha(prompt: Prompt, alpha: float) -> Prompt:
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if node["class_type"] == "SnoopiNASAApply":
            node["inputs"]["alpha"] = alpha
    return changed


def without_node(prompt: Prompt) -> Prompt:
    models = {
        number: node["inputs"]["model"] for number, node in prompt.items() if node["class_type"] == "SnoopiNASAApply"
    }
    changed = {number: copy.deepcopy(node) for number, node in prompt.items() if number not in models}
    for node in changed.values():
        for key, value in node["inputs"].items():
            if isinstance(value, list) and value[0] in models:
                node["inputs"][key] = models[value[0]]
    return changed


def latents(server: Server, outcome: Outcome) -> list[torch.Tensor]:
    found = []
    for number in sorted(outcome.outputs):
        for file in outcome.outputs[number].get("latents", []):
            path = server.base / "output" / file["subfolder"] / file["filename"]
            found.append(load_file(path)["latent_tensor"])
    return found


def run(server: Server, prompt: Prompt) -> tuple[list[torch.Tensor], Outcome, str]:
    """Latents, outcome, and what the server logged."""
    before = len(server.log())
    outcome = server.client.run(prompt)
    log = server.log()[before:]
    assert outcome.status == "success", (outcome.error, log[-3000:])
    return latents(server, outcome), outcome, log


def by_the_trainer(models: Path, prompt: Prompt, folder: Path) -> list[torch.Tensor]:
    """The latent of a template of one's own LoRA without NASA, in diffusers: of the student, and of its base alone."""
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    checkpoint = models / "checkpoints" / inputs["CheckpointLoaderSimple"]["ckpt_name"]
    base = str(write_teacher(checkpoint, folder / "base.safetensors"))
    student = load_student(str(models / "loras" / inputs["LoraLoaderModelOnly"]["lora_name"]), base=base)
    sampler = inputs["SnoopiOneStepSampler"]
    words, seed = prompt[sampler["positive"][0]]["inputs"]["text"], sampler["seed"]

    def noise(step: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed((seed + step * _SEED_STEP) % 2**64)
        return torch.randn((1, 4, SIDE // 8, SIDE // 8), generator=generator)

    return [
        steered_x0(model, Method("none"), model.encode([words]), None, student.recipe, noise)
        / model.vae.config.scaling_factor
        for model in (student, load_backbone(base))
    ]


@pytest.mark.parametrize("name", some(sorted(ATTENTIONS), 1))
def test_a_template_runs_with_the_files_that_it_names(server: Server, name: str, tmp_path: Path) -> None:
    prompt = small(load_prompt(api_file(named(name))))
    files = write_files(named(name), server.base / "models")
    try:
        steered, outcome, log = run(server, prompt)
        assert "lora key not loaded" not in log and not re.search("(unet|clip) missing|mismatch", log), log
        assert set(re.findall(r"Requested to load (\w+)", log)) == CLASSES[name]
        acted = re.findall(r"acted in (\d+) of \1 call\(s\) of the model: alpha .*? in (\d+ of \d+) attention", log)
        assert [layers for _, layers in acted] == ATTENTIONS[name], log
        saved = [file for output in outcome.outputs.values() for file in output.get("images", [])]
        assert saved and all(
            (server.base / "output" / file["subfolder"] / file["filename"]).stat().st_size for file in saved
        )

        off, _, _ = run(server, with_alpha(prompt, 0.0))
        plain, _, _ = run(server, without_node(prompt))
        if name.startswith("My "):
            students, bases = by_the_trainer(server.base / "models", prompt, tmp_path)
            error, effect = relative_error(plain[0], students), relative_error(students, bases)
            print(f"{name}: relative error of the latent {error:.1e}; the LoRA changes {effect:.3f} of it")
            assert error <= 1e-4 < 0.01 < effect
        for with_negative, neutral, untouched in zip(steered, off, plain, strict=True):
            assert with_negative.isfinite().all()
            assert torch.equal(neutral, untouched)
            change = (with_negative - untouched).norm() / untouched.norm()
            print(f"{name}: the negative changes {change:.3f} of the latent")
            assert change > 0.001
    finally:
        server.client.free()
        for file in files:
            file.unlink()


def test_every_template_of_current_models_is_here_and_those_of_ones_own_loras() -> None:
    from scripts.workflows.current import PICTURES
    from scripts.workflows.video import VIDEOS

    own = [name for name in NAMES if re.match("My .* LoRA", name)]
    assert len(own) == 2
    assert sorted(map(named, ATTENTIONS)) == sorted([*own, *(workflow.name for workflow in (*PICTURES, *VIDEOS))])
