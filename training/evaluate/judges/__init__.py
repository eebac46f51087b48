"""Who tells whether a negative prompt has removed what it names: a classifier, a plug-in, or people.

A judge sees pictures and the pair that they were made for, never the method. A plug-in is a function of that form,
named on the command line as package.module:function:

    def judge(pictures: list[PIL.Image.Image], pair: Pair) -> list[Verdict]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from PIL import Image

from training.evaluate.sets.pairs import Pair

PEOPLE, ZERO_SHOT = "people", "clip"
SHORT = {"shapes": "training.evaluate.judges.shapes:judge"}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Of one picture. `absent`: what the negative names is not there. `kept`: what the prompt asks for is. `valid`: it
    is a sound picture at all. None: the judge cannot tell."""

    absent: bool
    kept: bool | None = None
    valid: bool | None = None


class Judge(Protocol):
    """A verdict for each picture; all of them were made for `pair`."""

    def __call__(self, pictures: list[Image.Image], pair: Pair) -> Sequence[Verdict]: ...


def load_judge(args: argparse.Namespace) -> Judge:
    """The judge that a command line names.

    Raises:
        ValueError: there is no such function, or its weights do not fit.
        FileNotFoundError: (MissingWeights) its weights are not here.
    """
    if args.judge == PEOPLE:
        raise ValueError("people do not judge while a program waits; use `removal --judge people`")
    if args.judge == ZERO_SHOT:
        # Imported here: a plug-in may do without open_clip.
        from training.evaluate.judges.zero_shot import ZeroShot

        return ZeroShot.load(args)
    return checked(load_callable(SHORT.get(args.judge, args.judge), "judge"), args.judge)


def load_callable(name: str, what: str) -> Callable[..., Any]:
    """A function by its name, package.module:function.

    Raises:
        ValueError: there is no such module, or nothing of that name in it that can be called.
    """
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(
            f"{what} {name!r} is not known; available: {PEOPLE}, {ZERO_SHOT}, {', '.join(SHORT)}, or "
            "package.module:function"
            if what == "judge"
            else f"{what} {name!r} is not known; expected package.module:function"
        )
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{what} {name!r} cannot be imported: {error}") from error
    if not callable(found):
        raise ValueError(f"{what} {name!r} is a {type(found).__name__}, expected a function")
    return found


def checked(judge: Judge, name: str) -> Judge:
    """A plug-in that is told at once when it returns something else than it should."""

    def judge_and_check(pictures: list[Image.Image], pair: Pair) -> Sequence[Verdict]:
        verdicts = list(judge(pictures, pair))
        wrong = next((v for v in verdicts if not isinstance(v, Verdict)), None)
        if wrong is not None or len(verdicts) != len(pictures):
            raise ValueError(
                f"judge {name}: expected {len(pictures)} training.evaluate.judges.Verdict, got {len(verdicts)} "
                f"{type(wrong if wrong is not None else verdicts[0] if verdicts else None).__name__}"
            )
        return verdicts

    return judge_and_check
