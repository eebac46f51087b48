"""NASA Apply by itself: windows and messages. What every family must do is in support/families/contract.py."""

from __future__ import annotations

import pytest
import torch
from comfy.model_sampling import ModelSamplingDiscreteFlow
from unets import Case, case, conditioning, host_sample

from snoopi_core.host.conditioning.window import Window
from snoopi_core.host.families.unet import UNetFamily
from snoopi_core.host.loading.attachment import get_metadata, set_metadata
from snoopi_core.host.nasa.alpha import recommended_alpha
from snoopi_core.host.nasa.apply import apply_nasa
from snoopi_core.host.one_step import sigma_at

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


class TestNeutral:
    def test_an_empty_window_returns_the_model(self, subject):
        assert steer(subject.patcher, subject, start=0.5, end=0.5) is subject.patcher

    @pytest.mark.parametrize(("t", "percent"), [(999, 0.0), (799, 0.2), (399, 0.6)])
    def test_where_a_one_step_models_only_step_lies(self, subject, t, percent):
        """The help page recommends 0 and 1, which include the step of every model."""
        sampling = subject.patcher.get_model_object("model_sampling")
        sigma = sigma_at(sampling, t)
        assert Window().is_active(sigma, sampling)
        assert Window(start_percent=max(percent - 0.01, 0.0), end_percent=percent + 0.01).is_active(sigma, sampling)
        assert not Window(start_percent=percent + 0.01).is_active(sigma, sampling)
        assert percent == 0.0 or not Window(end_percent=percent - 0.01).is_active(sigma, sampling)

    @pytest.mark.parametrize("shift", [0.08, 1.0, 3.0])
    def test_the_first_step_of_a_flow_model_lies_in_a_window_from_0(self, shift):
        """With some shifts, rounding makes the host's largest sigma larger than 1, its sigma at 0 percent."""
        sampling = ModelSamplingDiscreteFlow()
        sampling.set_parameters(shift=shift)
        assert Window(end_percent=0.5).is_active(float(sampling.sigma_max), sampling)
        assert not Window(start_percent=0.5).is_active(float(sampling.sigma_max), sampling)

    def test_inside_the_window_nasa_acts_fully(self, subject):
        early = steer(subject.patcher, subject, end=0.5)
        assert torch.equal(sampled(early, subject), sampled(steer(subject.patcher, subject), subject))

    def test_windows_that_touch_add_up_to_one(self, subject):
        halves = steer(steer(subject.patcher, subject, end=0.5), subject, start=0.5)
        assert torch.equal(
            sampled(halves, subject, steps=4), sampled(steer(subject.patcher, subject), subject, steps=4)
        )

    def test_a_call_without_positive_rows_is_the_plain_one(self, subject):
        """Samplers may request only the unconditional prediction."""
        model = subject.patcher.model
        steered = steer(subject.patcher, subject)
        x, sigma = torch.randn(2, 4, 8, 8), torch.tensor([5.0, 5.0])
        context = subject.condition(2)["context"].repeat(2, 1, 1)
        options = {"cond_or_uncond": [1]}
        plain = model.apply_model(x, sigma, c_crossattn=context, transformer_options=dict(options))
        wrapped = {**options, "wrappers": steered.wrappers}
        assert torch.equal(plain, model.apply_model(x, sigma, c_crossattn=context, transformer_options=wrapped))


class TestMessages:
    def test_layers_and_alpha_and_the_papers_value(self, subject, caplog):
        with caplog.at_level("INFO"):
            steer(subject.patcher, subject, blocks="middle")
        assert "NASA Apply: alpha 0.5 in 1 of 7 attention layers of Stable Diffusion UNets" in caplog.text
        assert "start_percent" not in caplog.text

    def test_a_files_own_recommendation_wins(self, subject, monkeypatch):
        monkeypatch.setattr(UNetFamily, "kind", lambda self, model: "SD2.1")
        assert recommended_alpha(subject.patcher) == "the paper uses 0.30 (PG-SB SD2.1, SwiftBrush v2)"
        own = subject.patcher.clone()
        set_metadata(own, get_metadata(own).model_copy(update={"recommended_alpha": 0.7}))
        assert recommended_alpha(own) == "its file recommends 0.7"

    @pytest.mark.parametrize(("width", "kind"), [(768, "SD1.5"), (1024, "SD2.1"), (2048, "SDXL"), (48, None)])
    def test_kinds_are_recognised_by_the_text_encoder(self, subject, width, kind, monkeypatch):
        monkeypatch.setattr(UNetFamily, "_text_width", lambda self, model: width)
        assert UNetFamily().kind(subject.patcher.model) == kind

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"alpha": 0.0}, "NASA Apply does nothing: alpha is 0"),
            ({"start": 0.6, "end": 0.4}, "start_percent 0.6 is not before end_percent 0.4"),
        ],
    )
    def test_why_it_does_nothing(self, subject, caplog, settings, words):
        assert steer(subject.patcher, subject, **settings) is subject.patcher
        assert words in caplog.text

    def test_a_black_mask_names_the_usual_cause(self, subject, caplog):
        negative = conditioning(subject.condition(3))
        mask = torch.zeros(1, 64, 64)
        apply_nasa(subject.patcher, negative, alpha=ALPHA, window=Window(), blocks="all", mask=mask)
        assert "the mask is black everywhere" in caplog.text and "Convert Image to Mask" in caplog.text

    def test_no_step_in_the_window(self, subject, caplog):
        with caplog.at_level("WARNING"):
            sampled(steer(subject.patcher, subject, start=0.5), subject)
        assert "NASA Apply acted in no step of 1" in caplog.text
        caplog.clear()
        with caplog.at_level("WARNING"):
            sampled(steer(subject.patcher, subject, end=0.5), subject)
        assert "acted in no step" not in caplog.text
