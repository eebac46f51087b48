"""Warnings while a run goes wrong. VSD's losses say little: the student's loss is the size of the score gap, which is
small for a good student, for one that draws a single picture, and for a LoRA teacher that learns nothing.

Every limit below is far from what healthy runs show, so that a warning is worth reading; each was held against runs of
the small world, in which what a student draws can be counted. Limits in units of the run's own past, or of the teacher,
need no tuning to a model's scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

WINDOW = 20  # logged iterations: a median over them is steady although kappa and t are drawn anew each time
PAST = 60  # logged iterations before them: at first the LoRA teacher equals the frozen one, and the gap rises from 0
GRACE = 0.1  # of the run, and 100 iterations: a student begins as its teacher in one step, a blur


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A metric that must stay on one side of a limit.

    limit: crossed, it is told once. calm: back on this side, the episode is over, and crossing is told again.
    recent: the median of the last 20 logged values is judged, not each. past: in units of the median of all before
    these. grace: not judged in the first part of a run.
    seen, usually, remedy: what is told; seen has a place for the value.
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


_SLOWER = "lower student.learning_rate, or go back to an older checkpoint (README.txt)"

RULES = (
    # A student begins as its teacher in one step, a blur that varies a third as much as the teacher's images. Later on
    # the metric goes with the entropy within a prompt that the small world's rules count: at 0.4 about half of the
    # teacher's is left, below 0.2 next to nothing.
    Rule(
        metric="sample_diversity",
        limit=0.4,
        calm=0.5,
        grace=True,
        seen="images of one prompt differ between seeds {value:.2f} times as much as the teacher's",
        usually="the student is collapsing: one picture for each prompt, whatever the noise",
        remedy="lora.loss=native or a higher lora.rank (a LoRA teacher that is too weak lets it happen), a lower "
        "student.learning_rate, a smaller guidance.kappa_max; or keep an earlier checkpoint",
    ),
    Rule(
        metric="sample_diversity_prompts",
        limit=0.5,
        calm=0.6,
        grace=True,
        seen="images of different prompts differ {value:.2f} times as much as the teacher's",
        usually="the student hardly looks at its prompt any more, or draws a blur",
        remedy="check samples/; " + _SLOWER,
    ),
    # Healthy students stay within 0.9 and 1.1; at 1.5 contrast is burnt, at 0.6 an image is visibly grey.
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
        usually="the student has gone grey, or has not left the blur that it begins as",
        remedy="if samples/ get sharper, wait; else check student.timestep, student.alpha_T_squared and the teacher's "
        "prediction_type, and try a higher student.learning_rate",
    ),
    Rule(
        metric="x0_std_of_teacher",
        limit=1.5,
        calm=1.35,
        recent=True,
        grace=True,
        seen="the latents of the student in training are {value:.2f} times as strong as the teacher's",
        usually="the student is blowing up; the averaged one, which is sampled, follows later",
        remedy="a smaller guidance.kappa_max; " + _SLOWER,
    ),
    # From one window to the next, the gap of healthy runs changes by less than two times.
    Rule(
        metric="gap",
        limit=5.0,
        calm=2.5,
        recent=True,
        past=True,
        seen="the score gap is {value:.1f} times what it was before",
        usually="the two teachers disagree more and more: the LoRA teacher has lost the student, which then runs away",
        remedy="lora.updates=2, a higher lora.rank; " + _SLOWER,
    ),
    Rule(
        metric="gap",
        limit=1e-4,
        calm=2e-4,
        recent=True,
        seen="the score gap is {value:.1e}, of noise of variance 1",
        usually="the LoRA teacher stands still: it is still the frozen teacher, so the student learns nothing",
        remedy="a higher lora.learning_rate; look at lora_grad in metrics.jsonl, which should not be 0",
    ),
    Rule(
        metric="lora",
        limit=3.0,
        calm=2.0,
        recent=True,
        past=True,
        seen="the LoRA teacher's loss is {value:.1f} times what it was before",
        usually="it does not keep up with the student, whose images change faster than it learns",
        remedy="lora.updates=2, a higher lora.learning_rate or lora.rank; or a lower student.learning_rate",
    ),
    # Gradients vary more than the gap does, and are clipped: single ones are no matter.
    *(
        Rule(
            metric=f"{who}_grad",
            limit=10.0,
            calm=5.0,
            recent=True,
            past=True,
            seen=f"the {name}'s gradient norm is {{value:.0f}} times what it was before",
            usually="training has become unstable; clipping hides it for a while",
            remedy=f"a lower {who}.learning_rate, or a longer loop.warmup",
        )
        for who, name in (("student", "student"), ("lora", "LoRA teacher"))
    ),
)


class CollapseDetector:
    """Holds the metrics of a run against `RULES`, and says what is crossed: once for each episode.

    Args:
        iterations: of the run.
    """

    def __init__(self, iterations: int) -> None:
        self.grace = max(100, GRACE * iterations)
        self.standing: dict[Rule, str] = {}
        self._values: dict[str, list[float]] = {}
        self._since: dict[Rule, int] = {}

    def after(self, iteration: int, metrics: Mapping[str, float | None]) -> list[str]:
        """Take in the metrics of one logged iteration; return new warnings. `standing` has all that are not over.

        What is not a finite number is left out; the loop itself counts such iterations.
        """
        found = {name: value for name, value in metrics.items() if value is not None and math.isfinite(value)}
        for name in {rule.metric for rule in RULES} & found.keys():
            self._values.setdefault(name, []).append(found[name])
        new = [self._judge(rule, iteration) for rule in RULES if rule.metric in found]
        return [text for text in new if text]

    def _judge(self, rule: Rule, iteration: int) -> str | None:
        value = self._value(rule)
        if value is None:
            return None
        if not rule.crossed(value, rule.calm):
            self._since.pop(rule, None)
            self.standing.pop(rule, None)
        if not rule.crossed(value, rule.limit):
            return None
        since = self._since.setdefault(rule, iteration)
        if rule in self.standing or (rule.grace and iteration < self.grace):
            return None
        begun = f", since iteration {since}" if since < iteration else ""
        seen = rule.seen.format(value=value) + begun
        text = f"iteration {iteration}: {seen}. Usually: {rule.usually}. To try: {rule.remedy}."
        self.standing[rule] = text
        return text

    def _value(self, rule: Rule) -> float | None:
        """What is judged; None where there is not enough of it yet."""
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
