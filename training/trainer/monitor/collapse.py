"""Detects runs that go wrong. VSD's losses do not show it: the student's loss is the size of the score gap, which is
small for a good student, for one that draws a single image, and for a LoRA teacher that learns nothing.

Every limit below is far from the values of healthy runs, so a warning is worth reading. Each was checked on runs of the
shapes world, where what a student draws can be counted. Limits are in units of the run's own past or of the teacher,
so they need no tuning to a model's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

WINDOW = 20  # logged iterations: enough for a stable median, as kappa and t are random
PAST = 60  # logged iterations before the window: at first both teachers are equal, and the gap rises from 0
GRACE = 0.1  # of the run, but at least 100 iterations: a student starts as its teacher in one step, which draws a blur


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A metric that must stay on one side of a limit.

    limit: a warning is given once the metric crosses it. calm: the episode ends once the metric is back on this side;
    the next crossing gives a new warning. recent: compare the median of the last 20 logged values, not each value.
    past: divide by the median of all values before those. grace: ignore the first part of a run.
    seen, usually, remedy: parts of the warning; seen contains {value}.
    """

    metric: str
    limit: float
    calm: float
    seen: str
    usually: str
    remedy: str
    recent: bool = False
    past: bool = False
    grace: bool = False

    @property
    def above(self) -> bool:
        return self.limit > self.calm

    def crossed(self, value: float, limit: float) -> bool:
        return value > limit if self.above else value < limit


_SLOWER = "lower student.learning_rate, or return to an older checkpoint (README.txt)"

RULES = (
    # A student starts as its teacher in one step: a blur that varies a third as much as the teacher's images. Later the
    # metric follows the entropy within a prompt, as counted in the shapes world: at 0.4 about half of the teacher's is
    # left, below 0.2 almost nothing.
    Rule(
        metric="sample_diversity",
        limit=0.4,
        calm=0.5,
        grace=True,
        seen="images of one prompt differ between seeds {value:.2f} times as much as the teacher's",
        usually="the student is collapsing: it draws one image for each prompt, whatever the noise",
        remedy="lora.loss=native or a higher lora.rank (the LoRA teacher may be too weak), a lower "
        "student.learning_rate, a smaller guidance.kappa_max; or keep an earlier checkpoint",
    ),
    Rule(
        metric="sample_diversity_prompts",
        limit=0.5,
        calm=0.6,
        grace=True,
        seen="images of different prompts differ {value:.2f} times as much as the teacher's",
        usually="the student mostly ignores its prompt, or draws a blur",
        remedy="check samples/; " + _SLOWER,
    ),
    # Healthy students stay between 0.9 and 1.1; at 1.5 contrast is burnt, at 0.6 images are visibly grey.
    Rule(
        metric="sample_std",
        limit=1.5,
        calm=1.35,
        grace=True,
        seen="the averaged student's latents are {value:.2f} times as strong as the teacher's",
        usually="the student is blowing up: burnt colours and too much contrast",
        remedy="a smaller guidance.kappa_max; " + _SLOWER,
    ),
    Rule(
        metric="sample_std",
        limit=0.6,
        calm=0.7,
        grace=True,
        seen="the averaged student's latents are {value:.2f} times as strong as the teacher's",
        usually="the student draws grey images, or still the blur that it starts with",
        remedy="if the images in samples/ get sharper, wait; otherwise check student.timestep, student.alpha_T_squared "
        "and the teacher's prediction_type, and try a higher student.learning_rate",
    ),
    Rule(
        metric="x0_std_of_teacher",
        limit=1.5,
        calm=1.35,
        recent=True,
        grace=True,
        seen="the latents of the student in training are {value:.2f} times as strong as the teacher's",
        usually="the student is blowing up; the averaged student, which is sampled, will follow",
        remedy="a smaller guidance.kappa_max; " + _SLOWER,
    ),
    # In healthy runs the gap changes by less than a factor of two from one window to the next.
    Rule(
        metric="gap",
        limit=5.0,
        calm=2.5,
        recent=True,
        past=True,
        seen="the score gap is {value:.1f} times what it was before",
        usually="the teachers disagree more and more: the LoRA teacher no longer follows the student",
        remedy="lora.updates=2, a higher lora.rank; " + _SLOWER,
    ),
    Rule(
        metric="gap",
        limit=1e-4,
        calm=2e-4,
        recent=True,
        seen="the score gap is {value:.1e}, of noise of variance 1",
        usually="the LoRA teacher does not learn: it still equals the frozen teacher, so the student learns nothing",
        remedy="a higher lora.learning_rate; check that lora_grad in metrics.jsonl is not 0",
    ),
    Rule(
        metric="lora",
        limit=3.0,
        calm=2.0,
        recent=True,
        past=True,
        seen="the LoRA teacher's loss is {value:.1f} times what it was before",
        usually="the student's images change faster than the LoRA teacher learns",
        remedy="lora.updates=2, a higher lora.learning_rate or lora.rank; or a lower student.learning_rate",
    ),
    # Gradients vary more than the gap, and are clipped, so single large ones do not matter.
    *(
        Rule(
            metric=f"{network}_grad",
            limit=10.0,
            calm=5.0,
            recent=True,
            past=True,
            seen=f"the {name}'s gradient norm is {{value:.0f}} times what it was before",
            usually="training has become unstable; clipping hides it for a while",
            remedy=f"a lower {network}.learning_rate, or a longer loop.warmup",
        )
        for network, name in (("student", "student"), ("lora", "LoRA teacher"))
    ),
)


class CollapseDetector:
    """Checks the metrics of a run of `iterations` against `RULES`, and warns once for each episode.

    active: warnings of episodes that are not over.
    """

    def __init__(self, iterations: int) -> None:
        self.grace = max(100, GRACE * iterations)
        self.active: dict[Rule, str] = {}
        self._values: dict[str, list[float]] = {}
        self._since: dict[Rule, int] = {}

    def update(self, iteration: int, metrics: Mapping[str, float | None]) -> list[str]:
        """Add the metrics of one logged iteration, and return new warnings.

        Values that are not finite are ignored; the loop counts such iterations.
        """
        found = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        for name in {rule.metric for rule in RULES} & found.keys():
            self._values.setdefault(name, []).append(found[name])
        new = [self._check(rule, iteration) for rule in RULES if rule.metric in found]
        return [text for text in new if text]

    def _check(self, rule: Rule, iteration: int) -> str | None:
        value = self._value(rule)
        if value is None:
            return None
        if not rule.crossed(value, rule.calm):
            self._since.pop(rule, None)
            self.active.pop(rule, None)
        if not rule.crossed(value, rule.limit):
            return None
        since = self._since.setdefault(rule, iteration)
        if rule in self.active or (rule.grace and iteration < self.grace):
            return None
        duration = f", since iteration {since}" if since < iteration else ""
        seen = rule.seen.format(value=value) + duration
        text = f"iteration {iteration}: {seen}. Usually: {rule.usually}. To try: {rule.remedy}."
        self.active[rule] = text
        return text

    def _value(self, rule: Rule) -> float | None:
        """The value to compare with the limit; None as long as there are too few values."""
        values = self._values[rule.metric]
        if not rule.recent:
            return values[-1]
        if len(values) < WINDOW + PAST:
            return None
        recent = median(values[-WINDOW:])
        if not rule.past:
            return recent
        before = median(values[:-WINDOW])
        return recent / before if before > 0 else None
