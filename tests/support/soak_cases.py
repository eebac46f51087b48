"""Thirty small workflows of the shapes' models, as different as possible, in the API format."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

STUDENT, TEACHER = "snoopi-shapes-student.safetensors", "snoopi-shapes-teacher.safetensors"
FOUR_STEPS = "999, 749, 499, 249"


@dataclass(frozen=True, kw_only=True)
class Negative:
    """One NASA Apply node."""

    text: str
    alpha: float = 1.0
    masked: bool = False
    blocks: str = "all"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One workflow. It uses the host's KSampler if `cfg` is set, else ours."""

    text: str
    model: str = STUDENT
    negatives: tuple[Negative, ...] = ()
    timesteps: str = "auto"
    preset: str = "auto"
    cfg: float | None = None
    steps: int = 4
    side: int = 64
    batch: int = 1
    seed: int = 0


_SUBJECTS = ("a red square", "a blue shape", "two green circles", "a yellow triangle on the left", "")
_SETTINGS: tuple[Case, ...] = (
    Case(text="", negatives=()),
    Case(text="", negatives=(Negative(text="square"),), batch=2),
    Case(text="", model=TEACHER, timesteps=FOUR_STEPS),
    Case(text="", negatives=(Negative(text="circle", alpha=0.5, masked=True),)),
    Case(text="", model=TEACHER, negatives=(Negative(text="red", alpha=0.3),), cfg=3.0),
    Case(text="", negatives=(Negative(text="red", alpha=0.4), Negative(text="triangle", alpha=0.6, masked=True))),
)


def _cases() -> tuple[Case, ...]:
    cases = []
    for setting in _SETTINGS:
        for number, subject in enumerate(_SUBJECTS):
            cases.append(replace(setting, text=subject, seed=number))
    variations: dict[int, dict[str, Any]] = {
        1: {"preset": "SwiftBrush"},
        2: {"preset": "SiD-LSG"},
        3: {"side": 96},
        6: {"preset": "PG-SB SD2.1"},
        7: {"timesteps": "399"},
        11: {"preset": "LCM-LoRA, 4 steps", "timesteps": "auto"},
        12: {"preset": "Hyper-SD LoRA, 1 step", "timesteps": "auto"},
        13: {"preset": "SD-Turbo, 4 steps", "timesteps": "auto"},
        16: {"negatives": (Negative(text="circle " * 90, alpha=0.5, masked=True),)},
        17: {"negatives": (Negative(text="circle", alpha=0.5, masked=True, blocks="middle"),)},
        21: {"cfg": 1.0},
        22: {"steps": 1},
        23: {"batch": 3},
        26: {"negatives": (Negative(text="", alpha=0.4), Negative(text="triangle", alpha=2.5, masked=True))},
    }
    for number, changes in variations.items():
        cases[number] = replace(cases[number], **changes)
    # Reordered so that neighbours differ in the model and in most settings.
    return tuple(cases[(7 * number) % len(cases)] for number in range(len(cases)))


CASES = _cases()


def graph(case: Case, *, blanks: int = 0) -> dict[str, dict[str, Any]]:
    """The workflow, with `blanks` spaces after the prompt and half as many after the negatives."""
    nodes: dict[str, dict[str, Any]] = {}

    def add(kind: str, **inputs: Any) -> str:
        number = str(len(nodes) + 1)
        nodes[number] = {"class_type": kind, "inputs": inputs}
        return number

    loader = add("SnoopiPGSBLoader", ckpt_name=case.model)
    positive = add("CLIPTextEncode", clip=[loader, 1], text=case.text + " " * blanks)
    latent = add("EmptyLatentImage", width=case.side, height=case.side, batch_size=case.batch)
    model = loader
    for entry in case.negatives:
        negative = add("CLIPTextEncode", clip=[loader, 1], text=entry.text + " " * (blanks // 2))
        inputs = {"model": [model, 0], "negative": [negative, 0], "alpha": entry.alpha, "start_percent": 0.0}
        if entry.masked:
            dark = add("SolidMask", value=0.0, width=64, height=64)
            light = add("SolidMask", value=1.0, width=32, height=64)
            half = add("MaskComposite", destination=[dark, 0], source=[light, 0], x=case.seed, y=0, operation="add")
            inputs["mask"] = [half, 0]
        model = add("SnoopiNASAApply", end_percent=1.0, blocks=entry.blocks, **inputs)
    inputs = {"model": [model, 0], "positive": [positive, 0], "latent_image": [latent, 0], "seed": case.seed}
    if case.cfg is None:
        sampler = add("SnoopiOneStepSampler", timesteps=case.timesteps, preset=case.preset, **inputs)
    else:
        negative = add("CLIPTextEncode", clip=[loader, 1], text="blurred" + " " * (blanks // 2))
        settings = {"steps": case.steps, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        sampler = add("KSampler", negative=[negative, 0], cfg=case.cfg, **settings, **inputs)
    image = add("VAEDecode", samples=[sampler, 0], vae=[loader, 2])
    add("SaveImage", images=[image, 0], filename_prefix="soak")
    return nodes


def slow() -> dict[str, dict[str, Any]]:
    """A workflow that runs until it is interrupted."""
    return graph(
        Case(text="slow", model=TEACHER, negatives=(Negative(text="square", masked=True),), cfg=2.0, steps=5000)
    )


def failing() -> list[dict[str, dict[str, Any]]]:
    """Two workflows: one fails in NASA Apply, one in the sampler."""
    return [
        graph(Case(text="a shape", negatives=(Negative(text="square"), Negative(text="circle", blocks="attic")))),
        graph(Case(text="a shape", negatives=(Negative(text="square"),), timesteps="5000")),
    ]
