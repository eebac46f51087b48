"""NASA Inspect's explanation of numbers, and its chart of all of them."""

from __future__ import annotations

import pytest
import torch

from snoopi_core.guidance.methods import NASA, make_method
from snoopi_core.guidance.strength import LayerStrength, Response, strength_table
from snoopi_core.guidance.verdict import explain, verdict
from snoopi_core.pictures.drawing import load_font, wrap_text
from snoopi_core.pictures.strength_chart import WIDTH, strength_chart


def layer(name: str = "middle.0", *, z_neg: tuple[list[float], ...] = ([0.0, 1.0],), alpha: float = 1.0):
    """One layer with Z+ = (1, 0) and one token, and Z- as given."""
    made, z_pos = LayerStrength(name), torch.tensor([1.0, 0.0])
    total = torch.zeros(2)
    for number, values in enumerate(z_neg):
        made.negatives.setdefault(number, type(made.difference)()).add(z_pos, torch.tensor(values))
        total += alpha * torch.tensor(values)
    made.difference.add(z_pos, -total)
    return made


def test_the_numbers():
    one = layer(z_neg=([3.0, 4.0],), alpha=0.2)
    assert one.negatives[0].ratio == pytest.approx(5.0)
    assert one.negatives[0].cosine == pytest.approx(0.6)
    assert one.change == pytest.approx(1.0)
    assert one.left == pytest.approx(1.0 - 0.2 * 3.0)


def test_several_calls_are_added():
    one = layer()
    one.negatives[0].add(torch.tensor([0.0, 2.0]), torch.tensor([0.0, 1.0]))
    assert one.negatives[0].ratio == pytest.approx((2 / 5) ** 0.5)
    assert one.negatives[0].cosine == pytest.approx(2 / 10**0.5)


@pytest.mark.parametrize(
    ("z_neg", "alpha", "first", "expected"),
    [
        ([0.5, 0.5], 0.3, "OK", ["is informative", "Strength: the layers change by 21% on average, 85%"]),
        ([0.9, 0.2], 0.3, "Other negative needed: this one says the same", ["is uninformative", "Strength"]),
        ([0.8, 0.5], 0.3, "OK", ["may be too close to the prompt", "Strength"]),
        ([0.0, 1.0], 1.6, "Too strong: lower alpha to about 1.5", ["is informative", "the layers change by 160%"]),
        ([1.0, 0.0], 1.0, "Other negative needed", ["is uninformative", "the layers change by 100% on average, 0% of"]),
        ([1.0, 1.5], 1.1, "Too strong: lower alpha to about 0.83", ["is informative", "-10%"]),
        ([0.0, 0.0], 1.0, "No effect: the negative is all zeros", ["The negative has no response in any layer"]),
        ([0.0, 1.0], 0.0, "No effect: the mask is black", ["is informative", "No layer changes: the mask of NASA"]),
    ],
)
def test_in_words(z_neg, alpha, first, expected):
    layers = [layer(z_neg=(z_neg,), alpha=alpha)]
    assert verdict(layers, [(NASA, alpha)]).startswith(first)
    sentences = " ".join(explain(layers, [(NASA, alpha)]))
    assert all(words in sentences for words in expected), sentences


KNOWN = (1.0, "from the model's file")


@pytest.mark.parametrize(
    ("alphas", "known", "first"),
    [
        ((0.3,), KNOWN, "Too weak: raise alpha to about 1 (from the model's file)"),
        ((0.3,), None, "OK"),  # nothing says what would be enough
        ((0.5,), KNOWN, "OK"),
        ((0.3, 0.3), KNOWN, "OK"),  # of several in a chain each may be lower
        ((1.6,), KNOWN, "Too strong: lower alpha to about 1 (from the model's file)"),
        ((1.6,), (2.0, "from the model's file"), "Too strong: lower alpha to about 1.5"),
        ((1.5, 0.5), KNOWN, "Too strong: lower each alpha to about 75% of what it is"),
    ],
)
def test_the_models_own_alpha_decides_where_one_is_known(alphas, known, first):
    several = tuple([0.0, 1.0] for _ in alphas)
    one = layer(z_neg=several, alpha=sum(alphas) / len(alphas))
    assert verdict([one], [(NASA, alpha) for alpha in alphas], known) == first


def test_other_methods_have_no_limits_of_nasa():
    strong = [layer(z_neg=([0.0, 1.0],), alpha=1.6)]
    assert verdict(strong, [(make_method("NAG"), 5.0)], KNOWN).startswith("No verdict: no limits are known for NAG")
    assert verdict(strong, [(make_method("VSF"), 5.0)]) == (
        "Too strong: lower alpha to about 4, the highest published for VSF"
    )
    assert verdict(strong, [(make_method("orthogonal"), 1.6)], KNOWN) == "Too strong: lower alpha to about 1.5"


def test_a_zero_has_no_direction():
    """Where Z- or Z+ is zero, their cosine is not 0, which would mean that they have nothing in common."""
    silent, one = layer("a.0", z_neg=([0.0, 0.0],)), layer("b.0", z_neg=([1.0, 0.0],))
    assert "(mean cosine 1.00)" in explain([silent, one])[0]
    assert strength_table([silent, one]).splitlines()[1].split() == ["a.0", "0.00", "-", "0%", "0%", "100%"]

    mute = LayerStrength("c.0", {0: Response()})
    for response in (mute.negatives[0], mute.difference):
        response.add(torch.zeros(2), torch.ones(2))
    (sentence,) = explain([mute])
    assert sentence.startswith("The prompt has no response in any layer: it is all zeros")
    assert strength_table([mute]).splitlines()[1].split() == ["c.0", "-", "-", "-", "-", "-"]
    assert strength_chart([sentence], [mute]).isfinite().all()
    assert "(mean cosine 1.00)" in explain([mute, one])[0]


def test_of_several_negatives_one_may_do_nothing():
    sentences = explain([layer(z_neg=([0.0, 0.0], [0.0, 1.0]))])
    assert sentences[0].startswith("Negative 1 has no response") and sentences[1].startswith(
        "Negative 2 is informative"
    )
    assert sentences[2].startswith("Strength")


def test_a_negative_that_is_not_in_every_layer():
    layers = [layer("a.0"), layer("b.0", z_neg=([0.0, 1.0], [1.0, 0.0]))]
    sentences = explain(layers)
    assert sentences[0].startswith("Negative 1 is informative") and sentences[1].startswith("Negative 2 is unin")
    assert [line.split()[0] for line in strength_table(layers).splitlines()] == ["layer", "a.0", "b.0", "b.0"]


def test_numbers_of_negatives_are_the_nodes_own():
    one = layer()
    one.negatives = {1: one.negatives[0]}
    assert explain([one])[0].startswith("Negative 2 is informative")
    assert strength_table([one]).splitlines()[1].startswith("middle.0 (2)")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("where", ["pos", "other", "difference"])
def test_non_finite_numbers_are_described_and_not_drawn(value, where):
    layers = [layer("input.1"), layer("middle.0"), layer("output.3")]
    several = layers[1].difference if where == "difference" else layers[1].negatives[0]
    setattr(several, "other" if where == "difference" else where, torch.tensor(value))
    assert verdict(layers, [(NASA, 1.0)]) == "Broken model: it gives NaN or infinity"
    (sentence,) = explain(layers)
    assert "gives NaN or infinity in 1 of 3 cross-attentions, first in middle.0" in sentence
    assert len(strength_table(layers).splitlines()) == 4
    assert strength_chart([sentence], layers).isfinite().all()
    assert strength_chart([sentence], layers[1:2]).isfinite().all()


def test_more_negatives_than_a_layer_has_pixels():
    several = tuple([0.1 * n, 1.0] for n in range(11))
    assert strength_chart(["Words."], [layer(f"output.{n}", z_neg=several) for n in range(70)]).isfinite().all()


@pytest.mark.parametrize("count", [1, 7, 70])
@pytest.mark.parametrize("negatives", [1, 3])
def test_a_chart_has_a_bar_for_every_layer_and_negative(count, negatives):
    several = ([0.0, 1.0], [0.7, 0.7], [0.3, 2.0])[:negatives]
    chart = strength_chart(["Words."], [layer(f"output.{n // 2}", z_neg=several) for n in range(count)])
    assert chart.shape[2] == WIDTH and chart.shape[0] == 1 and float(chart.min()) >= 0.0 and float(chart.max()) <= 1.0
    grey = ((chart[0] - torch.tensor([0x57, 0x60, 0x6A]) / 255).abs() < 1 / 255).all(-1).any(0)
    # Bars of the last panel: as many runs of columns as layers.
    assert int((grey[1:] & ~grey[:-1]).sum()) + int(grey[0]) == count


def test_extreme_numbers_stay_on_the_page():
    strange = [layer(z_neg=([1e6, 0.0],), alpha=4.0), layer(z_neg=([-1.0, 0.0],)), layer(z_neg=([0.0, 0.0],))]
    assert strength_chart(["Words."], strange).isfinite().all()


def test_without_layers_there_is_only_text():
    short, long = (strength_chart(["Nothing is steered. " * times], []) for times in (1, 20))
    assert short.shape[1] < long.shape[1] < 400


def test_text_stays_within_its_width():
    lines = wrap_text("one two three " * 20 + "x" * 200, load_font(20), 300)
    assert all(load_font(20).getlength(line) <= 300 for line in lines[:-1])
    assert " ".join(lines).split() == ("one two three " * 20 + "x" * 200).split()
