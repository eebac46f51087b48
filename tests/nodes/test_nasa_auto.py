"""alpha_mode "auto": which alpha it uses; workflows from before this input give the same pictures."""

from __future__ import annotations

import pytest
import torch
from families import case as transformer_case
from host_world import HostStudent, pack_node
from unets import case

from snoopi_core.guidance.alpha import paper_alpha
from snoopi_core.guidance.methods import NASA, make_method
from snoopi_core.guidance.sweet_spot import choose
from snoopi_core.host.families.unet import UNetFamily
from snoopi_core.host.loading.attachment import get_metadata, set_metadata
from snoopi_core.host.nasa.alpha import auto_alpha, known_alpha

pytestmark = pytest.mark.host


@pytest.fixture(scope="module")
def student():
    return HostStudent()


def foreign(patcher):
    """The model as from another loader, without information about its file."""
    clone = patcher.clone()
    clone.attachments.pop("snoopi", None)
    assert get_metadata(clone) is None
    return clone


@pytest.fixture
def kind(monkeypatch):
    """Makes the small UNet a model of the kind."""
    return lambda name: monkeypatch.setattr(UNetFamily, "kind", lambda self, model: name)


class TestWhichAlpha:
    def test_a_files_own_alpha_comes_first(self, student, kind):
        kind("SD2.1")
        assert auto_alpha(student.model) == (1.0, "from the model's file")

    def test_a_file_that_recommends_no_negative_is_obeyed_aloud(self, student, caplog):
        none = student.model.clone()
        set_metadata(none, get_metadata(none).model_copy(update={"recommended_alpha": 0.0}))
        node = pack_node("nasa_apply", "NASAApply")
        assert node.execute(none, student.encode("square"), 0.3, alpha_mode="auto").result[0] is none
        reason = "from the model's file: no negative prompt is recommended"
        assert f'does nothing: alpha is 0, {reason}. "as set" uses another alpha' in caplog.text
        assert "no negative prompt is recommended" in choose([(NASA, 0.5)], known_alpha(none)).reason

    @pytest.mark.parametrize(("name", "alpha"), [("SD1.5", 0.04), ("SD2.1", 0.3)])
    def test_the_papers_alpha_for_our_students(self, student, kind, name, alpha):
        kind(name)
        unmeasured = student.model.clone()
        set_metadata(unmeasured, get_metadata(unmeasured).model_copy(update={"recommended_alpha": None}))
        assert auto_alpha(unmeasured) == (alpha, f"the paper's for PG-SB {name}")

    @pytest.mark.parametrize(("name", "alpha"), [("SD1.5", 0.04), ("SD2.1", 0.3)])
    def test_the_lowest_alpha_of_the_kind_for_foreign_models(self, kind, name, alpha):
        kind(name)
        assert auto_alpha(foreign(case("sd15").patcher)) == (
            alpha,
            f"a guess: the lowest published for {name} networks",
        )

    def test_pixart_has_one_for_ours_and_a_lower_one_for_others(self):
        assert paper_alpha("PixArt", is_pg_sb=True) == (0.8, "PG-SB PixArt, 999")
        assert paper_alpha("PixArt", is_pg_sb=False) == (0.2, "YOSO-PixArt")
        reason = "a guess: the lowest published for PixArt networks"
        assert auto_alpha(transformer_case("PixArt-alpha 512").patcher) == (0.2, reason)

    @pytest.mark.parametrize(
        ("name", "reason"), [("SDXL", "the paper only swept it, 0.0 to 1.0"), (None, "the paper has none")]
    )
    def test_otherwise_the_user_has_to_choose(self, kind, name, reason):
        kind(name)
        with pytest.raises(ValueError, match=f'alpha_mode is "auto", but no alpha is known .* {reason}') as caught:
            auto_alpha(foreign(case("sd15").patcher))
        assert 'Choose "as set" and start with alpha 0.3' in str(caught.value)

    def test_other_methods(self, student):
        with pytest.raises(ValueError, match=r"only NASA has known alphas, and method is NAG.*2 to 10"):
            auto_alpha(student.model, make_method("NAG"))

    def test_other_families(self):
        with pytest.raises(ValueError, match=r"no alpha is known for this model \(Wan"):
            auto_alpha(transformer_case("Wan 2.1 T2V").patcher)


@pytest.mark.both_hosts
class TestTheNode:
    def steered(self, student, *settings, **more):
        return pack_node("nasa_apply", "NASAApply").execute(student.model, student.encode("square"), *settings, **more)

    def sampled(self, student, model):
        sampler, latent = pack_node("one_step_sampler", "OneStepSampler"), {"samples": torch.zeros(1, 4, 8, 8)}
        return sampler.execute(model, student.encode("a blue shape"), latent, 2, "auto").result[0]["samples"]

    @torch.no_grad()
    def test_auto_uses_that_alpha_and_ignores_the_number(self, student):
        auto, by_hand = (self.steered(student, 0.1, alpha_mode="auto"), self.steered(student, 1.0))
        assert torch.equal(self.sampled(student, auto.result[0]), self.sampled(student, by_hand.result[0]))

    @torch.no_grad()
    def test_without_a_mode_the_number_is_used(self, student):
        set_, before = (self.steered(student, 0.1, alpha_mode="as set"), self.steered(student, 0.1))
        assert torch.equal(self.sampled(student, set_.result[0]), self.sampled(student, before.result[0]))
        assert self.steered(student, 0.0).result[0] is student.model
