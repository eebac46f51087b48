"""NASA Apply among everything else: neutral values, other patches, LoRAs, clones, failures."""

from __future__ import annotations

import copy

import comfy.ldm.modules.attention as attention
import comfy.sd
import pytest
import torch
from reference import Reference, Subtraction, relative_error
from unets import Case, case, conditioning, host_sample, noise, random_unet

from snoopi_core.host.attachment import get_metadata, set_metadata
from snoopi_core.host.families.unet import UNetFamily
from snoopi_core.host.nasa import apply_nasa, recommended_alpha
from snoopi_core.host.one_step import sigma_of
from snoopi_core.host.window import Window

pytestmark = pytest.mark.host

ALPHA = 0.5
T = 999


@pytest.fixture
def subject() -> Case:
    return case("sd15")


def steer(patcher, subject, *, alpha=ALPHA, start=0.0, end=1.0, blocks="all"):
    window = Window(start_percent=start, end_percent=end)
    return apply_nasa(patcher, conditioning(subject.condition(3)), alpha=alpha, window=window, blocks=blocks)


def sampled(patcher, subject, **settings):
    return host_sample(patcher, conditioning(subject.condition(1)), conditioning(subject.condition(2)), **settings)


def expected(subject, reference=None, positive=None):
    subtraction = Subtraction(subject.condition(3)["context"], ALPHA)
    return (reference or subject.reference).x0(noise(), T, positive or subject.condition(1), [subtraction])


class TestNeutral:
    def test_alpha_zero_hands_the_model_back(self, subject):
        assert steer(subject.patcher, subject, alpha=0.0) is subject.patcher

    def test_an_empty_window_hands_the_model_back(self, subject):
        assert steer(subject.patcher, subject, start=0.5, end=0.5) is subject.patcher

    def test_outside_the_window_nothing_changes(self, subject):
        late = steer(subject.patcher, subject, start=0.5)
        assert torch.equal(sampled(late, subject), sampled(subject.patcher, subject))

    @pytest.mark.parametrize(("t", "percent"), [(999, 0.0), (799, 0.2), (399, 0.6)])
    def test_where_a_one_step_models_only_step_lies(self, subject, t, percent):
        """The help page tells to leave 0 and 1, which hold the step of every model."""
        sampling = subject.patcher.get_model_object("model_sampling")
        sigma = sigma_of(sampling, t)
        assert Window().is_active(sigma, sampling)
        assert Window(start_percent=max(percent - 0.01, 0.0), end_percent=percent + 0.01).is_active(sigma, sampling)
        assert not Window(start_percent=percent + 0.01).is_active(sigma, sampling)
        assert percent == 0.0 or not Window(end_percent=percent - 0.01).is_active(sigma, sampling)

    def test_inside_the_window_it_is_the_whole_of_nasa(self, subject):
        early = steer(subject.patcher, subject, end=0.5)
        assert torch.equal(sampled(early, subject), sampled(steer(subject.patcher, subject), subject))

    def test_windows_that_touch_add_up_to_one(self, subject):
        halves = steer(steer(subject.patcher, subject, end=0.5), subject, start=0.5)
        assert torch.equal(
            sampled(halves, subject, steps=4), sampled(steer(subject.patcher, subject), subject, steps=4)
        )

    def test_a_call_without_positive_rows_is_the_plain_one(self, subject):
        """Samplers may ask for the unconditional prediction alone."""
        model = subject.patcher.model
        steered = steer(subject.patcher, subject)
        x, sigma = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 5.0])
        context = subject.condition(2)["context"].repeat(2, 1, 1)
        options = {"cond_or_uncond": [1]}
        plain = model.apply_model(x, sigma, c_crossattn=context, transformer_options=dict(options))
        wrapped = {**options, "wrappers": steered.wrappers}
        assert torch.equal(plain, model.apply_model(x, sigma, c_crossattn=context, transformer_options=wrapped))


class TestNothingLeaks:
    def test_the_model_before_the_node_stays_as_it_was(self, subject):
        before = sampled(subject.patcher, subject)
        steered = steer(subject.patcher, subject)
        assert not torch.equal(sampled(steered, subject), before)
        assert torch.equal(sampled(subject.patcher, subject), before)
        assert not subject.patcher.model_options["transformer_options"].get("patches_replace")

    def test_a_second_run_is_the_first(self, subject):
        steered = steer(subject.patcher, subject)
        first = sampled(steered, subject, cfg=2.0, steps=3)
        assert torch.equal(sampled(steered, subject, cfg=2.0, steps=3), first)
        assert torch.equal(sampled(steered.clone(), subject, cfg=2.0, steps=3), first)

    def test_two_branches_do_not_meet(self, subject):
        weak, strong = (steer(subject.patcher, subject, alpha=alpha) for alpha in (0.1, 0.9))
        alone = sampled(weak, subject)
        sampled(strong, subject)
        assert torch.equal(sampled(weak, subject), alone)

    def test_an_exception_in_mid_sampling_leaves_nothing(self, subject):
        steered = steer(subject.patcher, subject)
        plain, good = sampled(subject.patcher, subject, steps=3), sampled(steered, subject, steps=3)
        calls = 0

        def fails(q, k, v, extra_options):
            nonlocal calls
            calls += 1
            if calls == 5:
                raise RuntimeError("in mid-sampling")
            return attention.optimized_attention(q, k, v, extra_options["n_heads"])

        broken = steered.clone()
        broken.set_model_attn2_replace(fails, "middle", 0)
        with pytest.raises(RuntimeError, match="in mid-sampling"):
            sampled(broken, subject, steps=9)
        assert torch.equal(sampled(subject.patcher, subject, steps=3), plain)
        assert torch.equal(sampled(steered, subject, steps=3), good)
        assert not any("forward" in vars(module) for module in subject.patcher.model.modules())


class TestBesideOthers:
    @staticmethod
    def in_both_orders(subject, patch):
        """One patcher with `patch` before NASA Apply, one with it after."""
        before, after = subject.patcher.clone(), steer(subject.patcher, subject)
        patch(before)
        patch(after)
        return steer(before, subject), after

    @pytest.mark.parametrize("address", [("input", 1), ("input", 1, 0), ("output", 3)])
    def test_a_replaced_attention_is_kept(self, subject, address):
        """As image-prompt adapters do: their own attention at a block, added to the text's."""
        extra = subject.condition(9)["context"]

        def adapter(q, k, v, options):
            block = (*options["block"], options["block_index"])
            layer = layers_of(subject)[block].transformer.attn2
            out = attention.optimized_attention(q, k, v, options["n_heads"])
            image_k, image_v = layer.to_k(extra), layer.to_v(extra)
            return out + 0.7 * attention.optimized_attention(q, image_k, image_v, options["n_heads"])

        first, second = self.in_both_orders(subject, lambda patcher: patcher.set_model_attn2_replace(adapter, *address))
        got = sampled(first, subject)
        assert torch.equal(got, sampled(second, subject))
        group, index = address[:2]
        layers = [
            name for name in subject.reference.cross_attention_names() if name.startswith(DIFFUSERS_BLOCK[group, index])
        ]
        subtractions = [Subtraction(subject.condition(3)["context"], ALPHA), Subtraction(extra, -0.7, layers)]
        assert relative_error(got, subject.reference.x0(noise(), T, subject.condition(1), subtractions)) <= 2e-6

    def test_a_patched_context_is_only_the_positives(self, subject):
        """A patch may swap the text, and change its length; the negative stays the node's own."""
        other = subject.condition(8, tokens=100)

        def swap(n, context, value, options):
            return n, other["context"].expand(n.shape[0], -1, -1), other["context"].expand(n.shape[0], -1, -1)

        first, second = self.in_both_orders(subject, lambda patcher: patcher.set_model_attn2_patch(swap))
        got = sampled(first, subject)
        assert torch.equal(got, sampled(second, subject))
        assert relative_error(got, expected(subject, positive=other)) <= 2e-6

    def test_an_attention_override_sees_every_attention(self, subject):
        def counting(calls):
            def override(function, *args, **kwargs):
                calls.append(kwargs["transformer_options"]["block"])
                return function(*args, **kwargs)

            return override

        counts = []
        for patcher in (subject.patcher, steer(subject.patcher, subject)):
            calls = []
            clone = patcher.clone()
            clone.model_options["transformer_options"]["optimized_attention_override"] = counting(calls)
            assert torch.equal(sampled(clone, subject), sampled(patcher, subject))
            counts.append(len(calls))
        assert counts[1] == counts[0] + len(layers_of(subject))

    def test_a_lora_is_seen_wherever_it_is_applied(self, subject):
        """K- and V- come from the weights of the moment, so a LoRA after the node counts too."""
        layer = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v"
        down, up = torch.randn(4, 48) * 0.2, torch.randn(64, 4) * 0.2
        lora = {
            f"lora_unet_{layer.replace('.', '_')}.lora_down.weight": down,
            f"lora_unet_{layer.replace('.', '_')}.lora_up.weight": up,
            f"lora_unet_{layer.replace('.', '_')}.alpha": torch.tensor(4.0),
        }

        def with_lora(patcher):
            return comfy.sd.load_lora_for_models(patcher, None, dict(lora), 1.0, 0.0)[0]

        after = sampled(with_lora(steer(subject.patcher, subject)), subject)
        before = sampled(steer(with_lora(subject.patcher), subject), subject)
        assert torch.equal(after, before)

        unet = random_unet("sd15")
        unet.get_submodule(layer).weight += up @ down
        assert relative_error(after, expected(subject, Reference(unet, "epsilon"))) <= 2e-6
        assert relative_error(sampled(steer(subject.patcher, subject), subject), expected(subject)) <= 2e-6

    def test_a_layer_put_there_for_the_run_is_the_one_that_counts(self, subject):
        first_layer = next(iter(layers_of(subject).values())).transformer.attn2
        other = copy.deepcopy(first_layer).requires_grad_(False)
        other.to_v.weight.mul_(1.5)
        name = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2"
        first, second = self.in_both_orders(subject, lambda patcher: patcher.add_object_patch(name, other))
        got = sampled(first, subject)
        assert torch.equal(got, sampled(second, subject))
        unet = random_unet("sd15")
        unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2.to_v.weight.mul_(1.5)
        assert relative_error(got, expected(subject, Reference(unet, "epsilon"))) <= 2e-6

    def test_combined_prompts_are_each_steered(self, subject):
        """Two positives run as two chunks of one call, beside the unconditional one."""
        positive = conditioning(subject.condition(1)) + conditioning(subject.condition(5))
        unconditional = subject.condition(2)
        got = host_sample(steer(subject.patcher, subject), positive, conditioning(unconditional), cfg=2.0, rows=2)
        subtraction = Subtraction(subject.condition(3)["context"], ALPHA)
        both = sum(subject.reference.x0(noise(2), T, subject.condition(seed), [subtraction]) for seed in (1, 5)) / 2
        plain = subject.reference.x0(noise(2), T, unconditional)
        assert relative_error(got, plain + 2.0 * (both - plain)) <= 2e-6

    def test_half_precision_keeps_the_plain_models_error(self, subject):
        """bf16 weights computed in fp32, as --bf16-unet does on a CPU, and everything in bf16."""
        model = subject.patcher.model
        full = [sampled(patcher, subject) for patcher in (subject.patcher, steer(subject.patcher, subject))]
        model.diffusion_model.to(torch.bfloat16)
        model.diffusion_model.dtype, before = torch.bfloat16, model.diffusion_model.dtype
        try:
            half = [sampled(patcher, subject) for patcher in (subject.patcher, steer(subject.patcher, subject))]
        finally:
            case.cache_clear()  # the weights are rounded now
            model.diffusion_model.dtype = before
        plain_error, steered_error = (relative_error(ours, exact) for ours, exact in zip(half, full, strict=True))
        assert plain_error > 1e-4 and steered_error < 2 * plain_error


DIFFUSERS_BLOCK = {("input", 1): "down_blocks.0.", ("output", 3): "up_blocks.1.attentions.1."}


def layers_of(subject):
    return UNetFamily().layers(subject.patcher.model)


class TestSaysWhatItDoes:
    def test_layers_and_alpha_and_the_papers_value(self, subject, caplog):
        with caplog.at_level("INFO"):
            steer(subject.patcher, subject, blocks="middle")
        assert "NASA Apply: alpha 0.5 in 1 cross-attentions of Stable Diffusion UNets" in caplog.text

    def test_a_files_own_recommendation_wins(self, subject, monkeypatch):
        monkeypatch.setattr(UNetFamily, "kind", lambda self, model: "SD2.1")
        assert recommended_alpha(subject.patcher) == "the paper uses 0.30 (PG-SB SD2.1, SwiftBrush v2)"
        own = subject.patcher.clone()
        set_metadata(own, get_metadata(own).model_copy(update={"recommended_alpha": 0.7}))
        assert recommended_alpha(own) == "its file recommends 0.7"

    @pytest.mark.parametrize(("width", "kind"), [(768, "SD1.5"), (1024, "SD2.1"), (2048, "SDXL"), (48, None)])
    def test_kinds_are_told_by_the_text_encoder(self, subject, width, kind, monkeypatch):
        monkeypatch.setattr(UNetFamily, "_text_width", lambda self, model: width)
        assert UNetFamily().kind(subject.patcher.model) == kind
