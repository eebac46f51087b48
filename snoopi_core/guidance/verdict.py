"""What the measured strengths of all layers mean, in words for a person: a verdict in one line, and its reasons."""

from __future__ import annotations

from collections.abc import Sequence

from .methods import NASA, Method
from .strength import CLOSE_COSINE, NOTHING_LEFT, SAME_COSINE, STRONG_CHANGE, LayerStrength, Response, mean_of, percent
from .sweet_spot import CLOSE

OK = "OK"
"""How a verdict begins that asks for no change."""
NO_EFFECT = "No effect"
"""How a verdict begins when nothing is steered."""


def verdict(
    layers: Sequence[LayerStrength],
    strengths: Sequence[tuple[Method, float]],
    known: tuple[float, str] | None = None,
) -> str:
    """One line: "OK", "Too weak: ...", "Too strong: lower alpha to about ...", or why there is no such verdict.

    Args:
        strengths: method and alpha of each node that acts.
        known: the alpha of NASA for this model, and where it comes from; None if no alpha is known.
    """
    if any(not layer.is_finite for layer in layers):
        return "Broken model: it gives NaN or infinity"
    if _is_prompt_zero(layers):
        return "No verdict: the prompt is all zeros"
    acting = {number: several for number, several in _negatives(layers).items() if not _is_zero(several)}
    if all(layer.difference.is_zero for layer in layers):
        return f"{NO_EFFECT}: {'the mask is black in this picture' if acting else 'the negative is all zeros'}"
    if not acting:
        return "Other negative needed: this one is all zeros, so it names nothing"
    if same := [number + 1 for number, several in acting.items() if _cosine(several) >= SAME_COSINE]:
        which = "this one says" if len(acting) == 1 else f"negative {same[0]} says"
        return f"Other negative needed: {which} the same as the prompt"
    # The limits are NASA's; the change by "orthogonal" is a part of NASA's.
    for method, alpha in strengths:
        if method.highest_published is not None and alpha > method.highest_published:
            highest = f"{method.highest_published:g}, the highest published for {method.name}"
            return f"Too strong: lower alpha to about {highest}"
    if unmeasured := [method.name for method, _ in strengths if method.highest_published is not None]:
        return f"No verdict: no limits are known for {unmeasured[0]}; let the picture decide"
    change, left = _means(layers)
    if change >= STRONG_CHANGE or left <= NOTHING_LEFT:
        return f"Too strong: lower {_lower(change, left, strengths, known)}"
    if known and len(strengths) == 1 and strengths[0][0] is NASA and strengths[0][1] < CLOSE * known[0]:
        return f"Too weak: raise alpha to about {known[0]:g} ({known[1]})"
    return OK


def explain(layers: Sequence[LayerStrength], strengths: Sequence[tuple[Method, float]] = ()) -> list[str]:
    """What the layers' numbers mean, as sentences."""
    if broken := [layer.name for layer in layers if not layer.is_finite]:
        return [
            f"The model gives NaN or infinity in {len(broken)} of {len(layers)} cross-attentions, first in "
            f"{broken[0]}, so the negative cannot be measured, and a picture would be black. First look for what "
            "breaks the model without NASA Apply (a damaged file, a LoRA of another model); then try ComfyUI with "
            "--force-fp32."
        ]
    if _is_prompt_zero(layers):
        return [
            "The prompt has no response in any layer: it is all zeros (ConditioningZeroOut), so the negative cannot be "
            "compared with it. Connect a CLIP Text Encode to positive."
        ]
    negatives = _negatives(layers)
    is_alone = list(negatives) == [0]
    sentences = [
        _describe("The negative" if is_alone else f"Negative {number + 1}", several, strengths)
        for number, several in negatives.items()
    ]
    if all(layer.difference.is_zero for layer in layers):
        if not all(map(_is_zero, negatives.values())):
            sentences.append("No layer changes: the mask of NASA Apply is black in this picture.")
        return sentences
    change, left = _means(layers)
    sentences.append(
        f"Strength: the layers change by {change:.0%} on average, {percent(left)} of the prompt's own response is left."
    )
    return sentences


def _describe(which: str, responses: Sequence[Response], strengths: Sequence[tuple[Method, float]]) -> str:
    if _is_zero(responses):
        # NAG and VSF steer away from zeros too.
        but = [method.name for method, _ in strengths if not method.needs_response]
        acts = f" It names nothing, but {but[0]} changes the picture all the same." if but else ""
        return (
            f"{which} has no response in any layer: it is all zeros (ConditioningZeroOut).{acts} Connect a CLIP Text "
            "Encode that names what should not appear."
        )
    cosine = _cosine(responses)
    shown = f"mean cosine {cosine:.2f}"
    if cosine >= SAME_COSINE:
        weakens = ", so NASA only weakens the prompt" if all(method is NASA for method, _ in strengths) else ""
        return (
            f"{which} is uninformative: it means the same as the prompt ({shown}){weakens}. Name what should not "
            "appear, and nothing from the prompt."
        )
    if cosine >= CLOSE_COSINE:
        return (
            f"{which} may be too close to the prompt ({shown}; good ones have less than {CLOSE_COSINE:g} on a "
            "small model of ours, maybe more on other models). If it has no effect, repeat less of the prompt in it."
        )
    return f"{which} is informative: it differs from the prompt ({shown}), as any other text does, an empty one too."


def _lower(
    change: float, left: float, strengths: Sequence[tuple[Method, float]], known: tuple[float, str] | None
) -> str:
    """The alpha at which change and left are at their limits; both are linear in alpha in a layer."""
    share = min(STRONG_CHANGE / change, 1.0)
    if left <= NOTHING_LEFT:
        share = min(share, (1.0 - NOTHING_LEFT) / (1.0 - left))
    if len(strengths) != 1:
        return f"each alpha to about {share:.0%} of what it is"
    method, alpha = strengths[0]
    target = alpha * share
    if known and method is NASA and known[0] < target:
        return f"alpha to about {known[0]:g} ({known[1]})"
    return f"alpha to about {target:.2g}"


def _negatives(layers: Sequence[LayerStrength]) -> dict[int, list[Response]]:
    """The responses to each negative, by its number."""
    numbers = sorted({number for layer in layers for number in layer.negatives})
    return {number: [layer.negatives[number] for layer in layers if number in layer.negatives] for number in numbers}


def _is_zero(responses: Sequence[Response]) -> bool:
    return all(response.is_zero for response in responses)


def _is_prompt_zero(layers: Sequence[LayerStrength]) -> bool:
    return all(float(layer.difference.pos) == 0.0 for layer in layers)


def _cosine(responses: Sequence[Response]) -> float:
    return mean_of([response.cosine for response in responses])


def _means(layers: Sequence[LayerStrength]) -> tuple[float, float]:
    """Mean change, and mean share of the prompt's response that is left."""
    return mean_of([layer.change for layer in layers]), mean_of([layer.left for layer in layers])
