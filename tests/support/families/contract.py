"""Requirements for NASA in a family: tests that all families share. A family's test is a subclass of FamilyContract."""

from __future__ import annotations

import re

import pytest
import torch
from figures import measured
from reference import relative_error

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.families import family_of
from snoopi_core.host.inspect import StrengthObserver, first_step, inspect, observed_step
from snoopi_core.host.nasa.apply import apply_nasa
from snoopi_core.host.one_step import sample_plan

from . import Case, Condition, Subtraction, case, conditioning, failing

ALPHA = 0.5
BAR = 1e-6
EFFECT = 1e-2
"""NASA has to change more than this, or a comparison would prove nothing."""


def steer(patcher, condition: Condition, *, alpha=ALPHA, start=0.0, end=1.0, blocks="all", **settings):
    """NASA Apply with a negative."""
    window = Window(start_percent=start, end_percent=end)
    return apply_nasa(patcher, conditioning(condition), alpha=alpha, window=window, blocks=blocks, **settings)


def subtract(condition: Condition, alpha=ALPHA, **settings) -> Subtraction:
    return Subtraction(condition=condition, alpha=alpha, **settings)


def find_patches(network: torch.nn.Module) -> dict[str, object]:
    """Attributes and hooks of a network's modules, and the identity of each module."""
    return {
        name: (id(module), sorted(vars(module)), [*module._forward_hooks, *module._forward_pre_hooks])
        for name, module in network.named_modules()
    }


class FamilyContract:
    name: str
    """The row of the compatibility table."""
    bar = BAR
    """Of relative errors."""

    @pytest.fixture
    def subject(self) -> Case:
        return case(self.name)

    # The formula

    def check(self, subject: Case, negative: Condition, *, cfg=1.0, tokens=None, unconditional_tokens=None, padding=0):
        """Compare one step with NASA and one without against the formula, and record both errors."""
        positive = subject.condition(1, tokens, padding=padding)
        other = subject.condition(2, unconditional_tokens if unconditional_tokens is not None else tokens)
        guidance = {"cfg": cfg, "rows": 2, "unconditional": other if cfg != 1.0 else None}
        plain = subject.sample(subject.patcher, positive, other, cfg=cfg, rows=2)
        plain_expected = subject.expected(positive, **guidance)
        measured("families", self.name, "plain model", relative_error(plain, plain_expected), self.bar)

        got = subject.sample(steer(subject.patcher, negative), positive, other, cfg=cfg, rows=2)
        expected = subject.expected(positive, [subtract(negative)], **guidance)
        assert relative_error(plain_expected, expected) > EFFECT
        measured("families", self.name, "relative error", relative_error(got, expected), self.bar)

    @pytest.mark.both_hosts
    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    @pytest.mark.parametrize("length", ["tokens", "fewer", "more"])
    def test_matches_the_formula(self, subject, cfg, length):
        self.check(subject, subject.condition(3, getattr(subject, length)), cfg=cfg)

    @pytest.mark.both_hosts
    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    @pytest.mark.parametrize(("padding", "negative_padding"), [(0, 3), (3, 0), (3, 5)])
    def test_each_prompt_keeps_its_own_mask(self, subject, cfg, padding, negative_padding):
        negative = subject.condition(3, subject.more, padding=negative_padding)
        self.check(subject, negative, cfg=cfg, padding=padding)

    @pytest.mark.both_hosts
    def test_matches_the_formula_where_the_host_makes_two_calls(self, subject):
        """For these networks, prompts of different lengths cannot share a batch."""
        self.check(subject, subject.condition(3), cfg=2.0, unconditional_tokens=subject.more)

    def test_each_row_has_its_own_negative(self, subject):
        self.check(subject, subject.condition(3, rows=2))

    @pytest.mark.both_hosts
    def test_several_nodes_each_subtract(self, subject):
        first, second = subject.condition(3), subject.condition(4, subject.more, padding=2)
        steered = steer(steer(subject.patcher, first), second, alpha=0.2)
        positive, other = subject.condition(1), subject.condition(2)
        got = subject.sample(steered, positive, other, cfg=2.0, rows=2)
        subtractions = [subtract(first), subtract(second, 0.2)]
        expected = subject.expected(positive, subtractions, unconditional=other, cfg=2.0, rows=2)
        assert relative_error(subject.expected(positive, subtractions[:1], rows=2), expected) > EFFECT
        measured("families", self.name, "relative error", relative_error(got, expected), self.bar)

    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    def test_every_combined_positive_is_steered(self, subject, cfg):
        """Conditioning (Combine): one call of the network for all prompts; the host averages their predictions."""
        positives = [subject.condition(1), subject.condition(5)]
        other, negative = subject.condition(2), subject.condition(3)
        got = subject.sample(steer(subject.patcher, negative), positives, other, cfg=cfg, rows=2)
        guidance = {"cfg": cfg, "rows": 2, "unconditional": other if cfg != 1.0 else None}
        each = [subject.expected(positive, [subtract(negative)], **guidance) for positive in positives]
        measured("families", self.name, "relative error", relative_error(got, sum(each) / 2), self.bar)

    choices = (("block.1", [1]), ("block.0, block.2", [0, 2]), ("block", None))
    """Choices of blocks, and their numbers in the order in which they run."""

    @pytest.mark.parametrize("number", range(3))
    def test_blocks_select_layers(self, subject, number):
        blocks, indices = self.choices[number]
        positive, negative = subject.condition(1), subject.condition(3)
        got = subject.sample(steer(subject.patcher, negative, blocks=blocks), positive, positive)
        expected = subject.expected(positive, [subtract(negative, blocks=indices)])
        everywhere = subject.expected(positive, [subtract(negative)])
        assert indices is None or relative_error(everywhere, expected) > EFFECT
        measured("families", self.name, "relative error", relative_error(got, expected), self.bar)

    @pytest.mark.both_hosts
    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    def test_a_mask_limits_it_to_a_part_of_the_picture(self, subject, cfg):
        positive, other, negative = subject.condition(1), subject.condition(2), subject.condition(3)
        mask, tokens = subject.half()
        got = subject.sample(steer(subject.patcher, negative, mask=mask), positive, other, cfg=cfg, rows=2)
        guidance = {"cfg": cfg, "rows": 2, "unconditional": other if cfg != 1.0 else None}
        expected = subject.expected(positive, [subtract(negative, image_tokens=tokens)], **guidance)
        everywhere = subject.expected(positive, [subtract(negative)], **guidance)
        assert relative_error(everywhere, expected) > EFFECT
        measured("families", self.name, "relative error", relative_error(got, expected), self.bar)

    def test_a_mask_of_ones_changes_nothing(self, subject):
        positive, negative = subject.condition(1), subject.condition(3)
        ones = torch.ones(subject.latent_shape[-2:])
        masked = subject.sample(steer(subject.patcher, negative, mask=ones), positive, positive)
        unmasked = subject.sample(steer(subject.patcher, negative), positive, positive)
        assert torch.equal(masked, unmasked)

    # The comparison must detect wrong formulas

    @pytest.mark.parametrize("mutant", ["plus", "after the projection", "on the unconditional rows too", "no masks"])
    def test_the_comparison_sees_a_wrong_formula(self, subject, mutant):
        positive, other = subject.condition(1), subject.condition(2)
        negative = subject.condition(3, padding=2)
        right = {"subtractions": [subtract(negative)], "unconditional_subtractions": []}
        if mutant == "plus":
            wrong = {**right, "subtractions": [subtract(negative, -ALPHA)]}
        elif mutant == "after the projection":
            wrong = {**right, "subtractions": [subtract(negative, after_projection=True)]}
        elif mutant == "no masks":
            wrong = {**right, "subtractions": [subtract(subject.condition(3))]}
        else:
            wrong = {**right, "unconditional_subtractions": [subtract(negative)]}
        guidance = {"unconditional": other, "cfg": 2.0, "rows": 2}
        got = subject.sample(steer(subject.patcher, negative), positive, other, cfg=2.0, rows=2)
        assert relative_error(got, subject.expected(positive, **right, **guidance)) <= self.bar
        error = relative_error(got, subject.expected(positive, **wrong, **guidance))
        if mutant in self.invisible:
            assert error <= self.bar
        else:
            assert error > 1000 * self.bar

    invisible: tuple[str, ...] = ()
    """Mutants that are no mistake in this family."""

    # What must not change

    def test_alpha_zero_returns_the_model_itself(self, subject):
        assert steer(subject.patcher, subject.condition(3), alpha=0.0) is subject.patcher

    @pytest.mark.parametrize("cfg", [1.0, 2.0])
    def test_nothing_changes_outside_the_window(self, subject, cfg):
        positive, other = subject.condition(1), subject.condition(2)
        late = steer(subject.patcher, subject.condition(3), start=0.5)
        got = subject.sample(late, positive, other, cfg=cfg, rows=2)
        plain = subject.sample(subject.patcher, positive, other, cfg=cfg, rows=2)
        measured("families", self.name, "outside the window", float((got - plain).abs().max()), 0.0)

    @pytest.mark.both_hosts
    def test_the_input_model_is_unchanged(self, subject):
        positive, negative = subject.condition(1), subject.condition(3)
        before = subject.sample(subject.patcher, positive, positive)
        network = subject.patcher.model.diffusion_model
        found, weights = find_patches(network), {name: w.clone() for name, w in network.state_dict().items()}
        assert not torch.equal(subject.sample(steer(subject.patcher, negative), positive, positive), before)
        assert find_patches(network) == found
        assert all(torch.equal(weights[name], w) for name, w in network.state_dict().items())
        after = subject.sample(subject.patcher, positive, positive)
        measured("families", self.name, "model afterwards", float((after - before).abs().max()), 0.0)

    @pytest.mark.both_hosts
    def test_an_exception_during_sampling_leaves_no_patches(self, subject):
        positive, negative = subject.condition(1), subject.condition(3)
        steered = steer(subject.patcher, negative)
        plain, good = (subject.sample(patcher, positive, positive) for patcher in (subject.patcher, steered))
        network = subject.patcher.model.diffusion_model
        found = find_patches(network)
        error = RuntimeError("in mid-sampling")
        with failing(subject.last_block(), error), pytest.raises(RuntimeError, match="in mid-sampling"):
            subject.sample(steered, positive, positive)
        assert find_patches(network) == found
        assert torch.equal(subject.sample(subject.patcher, positive, positive), plain)
        assert torch.equal(subject.sample(steered, positive, positive), good)

    def test_a_second_run_equals_the_first(self, subject):
        positive, other, negative = subject.condition(1), subject.condition(2, subject.more), subject.condition(3)
        steered = steer(subject.patcher, negative)
        first = subject.sample(steered, positive, other, cfg=2.0, steps=3)
        again = subject.sample(steered, positive, other, cfg=2.0, steps=3)
        copied = subject.sample(steered.clone(), positive, other, cfg=2.0, steps=3)
        measured("families", self.name, "run twice", float((again - first).abs().max()), 0.0)
        assert torch.equal(copied, first)

    def test_two_branches_do_not_affect_each_other(self, subject):
        positive, negative = subject.condition(1), subject.condition(3)
        weak, strong = (steer(subject.patcher, negative, alpha=alpha) for alpha in (0.1, 0.9))
        alone = subject.sample(weak, positive, positive)
        assert not torch.equal(subject.sample(strong, positive, positive), alone)
        assert torch.equal(subject.sample(weak, positive, positive), alone)

    def test_the_negative_is_unchanged(self, subject):
        """Some networks modify the prompt that they get."""
        positive, negative = subject.condition(1), conditioning(subject.condition(3, padding=2))
        tensors = {"": negative[0][0], **negative[0][1]}
        before = {key: value.clone() for key, value in tensors.items() if isinstance(value, torch.Tensor)}
        steered = apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all")
        subject.sample(steered, positive, positive)
        assert all(torch.equal(tensors[key], value) for key, value in before.items())

    @pytest.mark.both_hosts
    def test_in_inference_mode(self, subject):
        """The host's nodes run in inference mode, where some prompts are prepared in other code."""
        positive, negative = subject.condition(1), subject.condition(3)
        with torch.inference_mode():
            got = subject.sample(steer(subject.patcher, negative), positive, positive, rows=2)
        expected = subject.expected(positive, [subtract(negative)], rows=2)
        measured("families", self.name, "relative error", relative_error(got, expected), self.bar)

    # Observing

    @pytest.mark.both_hosts
    def test_observing_changes_nothing_and_gives_the_formulas_values(self, subject):
        positive, first, second = subject.condition(1), subject.condition(3), subject.condition(4, padding=2)
        steered = steer(steer(subject.patcher, first), second, alpha=0.2)
        layers = family_of(subject.patcher.model).layers(subject.patcher.model)
        watch = StrengthObserver({key: str(number) for number, key in enumerate(layers)})
        way, latent = first_step(steered), {"samples": subject.latent(2)}
        seen = observed_step(way, conditioning(positive), latent, seed=7, observer=watch)["samples"]
        assert torch.equal(seen, sample_plan(way, conditioning(positive), latent, seed=7)["samples"])

        expected = subject.expected(positive, [subtract(first), subtract(second, 0.2)], rows=2)
        assert relative_error(seen, expected) <= self.bar
        assert [layer.name for layer in watch.layers] == [str(index) for index in range(subject.blocks)]
        for layer, attention in zip(watch.layers, subject.reference.attentions, strict=True):
            z_pos, responses, z = attention.seen
            assert layer.change == pytest.approx(float((z - z_pos).norm() / z_pos.norm()), rel=1e-5)
            assert layer.left == pytest.approx(float((z * z_pos).sum() / z_pos.square().sum()), abs=1e-5)
            for number, z_neg in enumerate(responses):
                negative, norms = layer.negatives[number], z_pos.norm() * z_neg.norm()
                assert negative.ratio == pytest.approx(float(z_neg.norm() / z_pos.norm()), rel=1e-5)
                assert negative.cosine == pytest.approx(float((z_pos * z_neg).sum() / norms), abs=1e-5)

    def test_inspect_returns_a_report(self, subject):
        """It runs uncompiled, including the processing of the negative before the first block."""
        positive, steered = conditioning(subject.condition(1)), steer(subject.patcher, subject.condition(3))
        chart, report = inspect(steered, positive, {"samples": subject.latent()}, seed=7)
        family = family_of(subject.patcher.model).name
        assert report.splitlines()[1].startswith(
            f"NASA Apply acts in {subject.blocks} of {subject.blocks} cross-attentions of {family}"
        )
        assert "The negative " in report and "nan" not in report and chart.isfinite().all()
        assert inspect(steered, positive, {"samples": subject.latent()}, seed=7)[1] == report

    # Error messages

    known_blocks: str | None = None
    """In an error message; None for one group "block"."""

    def test_an_unknown_block_is_refused_with_a_list_of_known_ones(self, subject):
        known = self.known_blocks or f"block.0-{subject.blocks - 1}"
        with pytest.raises(ValueError, match=re.escape(known)):
            steer(subject.patcher, subject.condition(3), blocks="block.99")

    def test_a_negative_of_another_text_encoder_is_refused(self, subject):
        negative = subject.condition(3)
        negative["context"] = negative["context"][..., :32]
        with pytest.raises(ValueError, match="text encoder"):
            steer(subject.patcher, negative)
