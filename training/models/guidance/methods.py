"""The registry of guidance methods: the ways in which a negative prompt can act.

To add a method, write a file beside this one and add an entry to `_SPECS`. Parsing, sampling, help texts and reports
all use the entry. Implementations are imported when they are needed, so this module is quick to import.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One method.

    name: on the command line.
    formula: what it computes, for error messages.
    label: what reports append to a model's title; "{0}" is replaced by the number of steps.
    strength: name of its strength in help texts; empty for a method without one.
    neutral: the strength at which it changes nothing; None if there is no such strength.
    recommended: whether its name alone means the strength that the model's file or preset recommends.
    many_steps: whether it samples in many steps, as a teacher does, instead of the student's.
    processor: its GuidanceProcessor, as "module:class", for a method that acts in cross-attention.
    x0: its function (predict, positive, negative, strength) -> x0, as "module:function", for one that does not.
    """

    name: str
    formula: str
    label: str
    strength: str = ""
    neutral: float | None = None
    recommended: bool = False
    many_steps: bool = False
    processor: str = ""
    x0: str = ""

    @property
    def usage(self) -> str:
        """How it is written on the command line, such as "nasa:ALPHA"."""
        return ":".join(filter(None, [self.name, "STEPS" if self.many_steps else "", self.strength]))


_SPECS = (
    MethodSpec(name="none", formula="the negative is not used", label=""),
    MethodSpec(
        name="nasa",
        formula="Z+ - strength Z- in every cross-attention",
        label=" + NASA",
        strength="ALPHA",
        neutral=0.0,
        recommended=True,
        processor="training.models.guidance.nasa:NasaProcessor",
    ),
    MethodSpec(
        name="cfg",
        formula="x0(neg) + strength (x0(pos) - x0(neg)); 1 is no guidance",
        label=" + CFG",
        strength="SCALE",
        neutral=1.0,
        x0="training.models.guidance.cfg:cfg_x0",
    ),
    MethodSpec(
        name="embeddings",
        formula="the text embeddings e+ - strength e-",
        label=" - embeddings",
        strength="SCALE",
        neutral=0.0,
        x0="training.models.guidance.embeddings:subtracted_x0",
    ),
    MethodSpec(
        name="nag",
        formula="normalized attention guidance; the strength is phi",
        label=" + NAG",
        strength="PHI",
        neutral=0.0,
        processor="training.models.guidance.nag:NagProcessor",
    ),
    MethodSpec(
        name="vsf",
        formula="value sign flip: one softmax over both prompts, the negative's values times -strength",
        label=" + VSF",
        strength="ALPHA",
        processor="training.models.guidance.vsf:VsfProcessor",
    ),
    MethodSpec(
        name="orthogonal",
        formula="as nasa, with only the part of Z- that is orthogonal to Z+",
        label=" + orthogonal NASA",
        strength="ALPHA",
        neutral=0.0,
        processor="training.models.guidance.orthogonal:OrthogonalProcessor",
    ),
    MethodSpec(
        name="teacher",
        formula="many steps of CFG with the null prompt; the negative is not used",
        label=" {0} steps",
        strength="CFG",
        many_steps=True,
    ),
    MethodSpec(
        name="teacher-negative",
        formula="the same with the negative in place of the null prompt",
        label=" {0} steps + negative",
        strength="CFG",
        many_steps=True,
    ),
)
METHODS: dict[str, MethodSpec] = {spec.name: spec for spec in _SPECS}


@dataclass(frozen=True)
class Method:
    """A method with its strength and, for many steps, their number; written "none", "nasa:0.3" or "teacher:25:7.5".

    Raises:
        ValueError: the name is not known; the message lists those that are.
    """

    name: str
    strength: float = 0.0
    steps: int = 0

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            raise ValueError(f"method {self.name!r} is not known; available: {', '.join(METHODS)}")

    @classmethod
    def parse(cls, text: str) -> Method:
        """Read a method as it is written on the command line.

        Raises:
            ValueError: it is not a method; the message lists those that are available.
        """
        name, *numbers = text.strip().split(":")
        spec = METHODS.get(name)
        if spec is None or len(numbers) != spec.usage.count(":"):
            available = "; ".join(f"{each.usage} ({each.formula})" for each in METHODS.values())
            raise ValueError(f"method {text!r} is not known; available: {available}")
        if not numbers:
            return cls(name)
        try:
            strength, steps = float(numbers[-1]), int(numbers[0]) if spec.many_steps else 0
        except ValueError:
            strength, steps = float("nan"), 0
        if not 0 <= strength < float("inf") or (spec.many_steps and steps < 1):
            if spec.many_steps:
                raise ValueError(
                    f"method {text!r}: expected at least 1 step and a scale of at least 0, such as {name}:25:7.5"
                )
            raise ValueError(f"method {text!r}: its strength must be a number of at least 0, such as {name}:0.3")
        return cls(name, strength, steps)

    def __str__(self) -> str:
        parts = [self.name, str(self.steps) if self.steps else "", f"{self.strength:g}"]
        return ":".join(filter(None, parts if METHODS[self.name].strength else parts[:-1]))

    @property
    def many_steps(self) -> bool:
        """Whether it samples in many steps, as a teacher does."""
        return METHODS[self.name].many_steps

    def plain(self) -> Method:
        """The same without the negative, to compare with."""
        return replace(self, name="teacher") if self.many_steps else Method("none")


def methods_help() -> str:
    """The methods as they are written on the command line, for a help text."""
    specs = METHODS.values()
    few = ", ".join(spec.usage for spec in specs if not spec.many_steps)
    alone = " and ".join(spec.name for spec in specs if spec.recommended)
    many = " and ".join(spec.usage for spec in specs if spec.many_steps)
    return f"{few}; {alone} alone takes the file's alpha; of a teacher {many}"


def method_label(method: str) -> str:
    """What a report appends to a model's title for `method`; unknown methods, of another program, as they are."""
    name, *numbers = method.split(":")
    spec = METHODS.get(name)
    return f" {method}" if spec is None else spec.label.format(*numbers)


def neutral_strength(name: str) -> float | None:
    """The strength at which a method changes nothing; None if there is none, or the method is unknown."""
    spec = METHODS.get(name)
    return None if spec is None else spec.neutral
