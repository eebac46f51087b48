"""A recipe: all settings of one training run, and their hash."""

from __future__ import annotations

import hashlib
import json
from textwrap import fill
from typing import Any

import tomli_w
from pydantic import Field

from training.config.evaluation import Evaluate
from training.config.settings import Clip, Guidance, Loop, Lora, Output, Prompts, Section, Student, Teacher
from training.config.sources import WORLDS

_LATER = {  # settings that came later: a recipe that leaves them out has the hash that it had before
    "teacher": ("loras",),
    "student": ("timesteps", "step_weights", "step_gradient", "transition"),
    "lora": ("batches", "t_min", "t_max", "t_shift"),
    "guidance": ("decoupled",),
    "loop": ("vsd_weight", "t_shift", "tf32", "cudnn_benchmark"),
}


def with_older_defaults(saved: dict[str, Any]) -> dict[str, Any]:
    """A recipe with all settings of its time, with the defaults of that time that are others now."""
    lora = saved.get("lora")
    return saved | {"lora": {"batches": "shared"} | lora} if isinstance(lora, dict) else saved


class Recipe(Section):
    """One training run."""

    seed: int = Field(default=0, ge=0, lt=2**63)
    teacher: Teacher
    student: Student = Student()
    lora: Lora = Lora()
    guidance: Guidance = Guidance()
    clip: Clip = Clip()
    loop: Loop = Loop()
    prompts: Prompts
    output: Output = Output()
    evaluate: Evaluate = Evaluate()

    @classmethod
    def of_run(cls, saved: dict[str, Any]) -> Recipe:
        """The recipe that a run has saved: what an older version's lacks means what that version did."""
        return cls.model_validate(with_older_defaults(saved))

    def sha256(self) -> str:
        """Hash of the settings that affect the weights, which is all but [output] and [evaluate]."""
        return hashlib.sha256(json.dumps(self.to_hash("output"), sort_keys=True).encode()).hexdigest()

    def to_hash(self, *excluded: str) -> dict[str, Any]:
        """All settings but [evaluate] and the excluded sections, and but those of `_LATER` that have their default."""
        content = self.model_dump(mode="json", exclude={"evaluate", *excluded})
        for section in _LATER.keys() & content.keys():
            given = getattr(self, section)
            for name in _LATER[section]:
                if getattr(given, name) == type(given).model_fields[name].default:
                    del content[section][name]
        return content

    @property
    def evaluation(self) -> Evaluate:
        """[evaluate] with what it leaves out filled in."""
        source = self.prompts.source
        world = source if isinstance(source, str) and source in WORLDS else ""
        return self.evaluate.filled_in(world, self.output.recommended_alpha)

    def to_toml(self) -> str:
        """All settings; a comment at the end names those without a value, which TOML cannot express."""
        sections = ((name, getattr(self, name)) for name in type(self).model_fields)
        unset = [f"{name}.{key}" for name, one in sections if isinstance(one, Section) for key, v in one if v is None]
        about = f"Not set: {', '.join(unset) or 'none'}. training/README.md says where every setting is described."
        comment = fill(about, 120, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        return f"{tomli_w.dumps(self.model_dump(mode='json', exclude_none=True))}\n{comment}\n"
