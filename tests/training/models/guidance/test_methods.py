"""Methods of using a negative prompt, against their formulas, in one step and in several."""

import pytest
import torch
from diffusers.models.attention_processor import Attention
from distilled import relative
from evaluation import STUDENT
from tiny import tiny_pixart_backbone

from snoopi_core.formats.checkpoint import OneStepRecipe
from training.evaluate.generate.student import parse_methods
from training.models.guidance.attention import attach
from training.models.guidance.few_steps import steered_x0
from training.models.guidance.methods import Method
from training.models.guidance.nag import NagProcessor
from training.models.guidance.nasa import NasaProcessor
from training.models.guidance.orthogonal import OrthogonalProcessor
from training.models.guidance.vsf import VsfProcessor
from training.models.loading import load_backbone
from training.models.sampling import one_step_x0
from training.models.sampling_recipe import sampling_recipe
from training.models.text_embeddings import TextEmbeddings


@pytest.fixture(scope="module", params=["the bundled UNet", "PixArt"])
def model(request):
    return tiny_pixart_backbone() if request.param == "PixArt" else load_backbone(STUDENT)


@pytest.fixture(scope="module")
def texts(model):
    return model.encode(["a red shape", "a ring"]), model.encode(["left", "green"])


@pytest.fixture(scope="module")
def z(model):
    size = model.network.config.sample_size
    return torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(0))


def plain(model, text, z, recipe):
    t, alpha, sigma = recipe.timesteps[0], recipe.alpha_T, recipe.sigma_T
    return one_step_x0(model, model.network, text, z, timestep=t, alpha_T=alpha, sigma_T=sigma)


def test_each_method_equals_its_formula(model, texts, z):
    positive, negative = texts
    recipe = sampling_recipe(model)
    x0_pos, x0_neg = plain(model, positive, z, recipe), plain(model, negative, z, recipe)

    def steered(method, away=negative):
        return steered_x0(model, Method.parse(method), positive, away, recipe, lambda step: z)

    assert torch.equal(steered("none"), x0_pos) and torch.equal(steered("nasa:0.5", None), x0_pos)
    for neutral in ("nasa:0", "nag:0", "orthogonal:0", "embeddings:0"):
        assert torch.equal(steered(neutral), x0_pos)
    assert relative(steered("cfg:1"), x0_pos) < 1e-5
    assert relative(steered("cfg:1.5"), 1.5 * x0_pos - 0.5 * x0_neg) < 1e-5
    moved = TextEmbeddings(states=positive.states - 0.5 * negative.states, mask=positive.mask)
    assert torch.equal(steered("embeddings:0.5"), plain(model, moved, z, recipe))
    ways = {"nasa": NasaProcessor, "nag": NagProcessor, "vsf": VsfProcessor, "orthogonal": OrthogonalProcessor}
    for method, way in ways.items():
        got = steered(f"{method}:0.7")
        with attach(model.network, way(negative, 0.7)):
            assert torch.equal(got, plain(model, positive, z, recipe))
        for row in (slice(0, 1), slice(1, 2)):  # every row has its own negative
            alone = steered_x0(
                model, Method(method, 0.7), positive[row], negative[row], recipe, lambda step, row=row: z[row]
            )
            assert relative(got[row], alone) < 1e-4
        assert relative(got, x0_pos) > 1e-3


@pytest.mark.parametrize("masked", [False, True], ids=["all tokens", "padding"])
def test_vsf_equals_its_formula_per_head(masked):
    generator = torch.Generator().manual_seed(0)
    layer = Attention(query_dim=8, cross_attention_dim=6, heads=2, dim_head=4, out_dim=8).double()
    for weight in layer.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    hidden = torch.randn(1, 5, 8, generator=generator, dtype=torch.float64)
    pos, neg = (torch.randn(1, tokens, 6, generator=generator, dtype=torch.float64) for tokens in (3, 4))
    seen = torch.tensor([[True, True, not masked, not masked]])
    layer.set_processor(VsfProcessor(TextEmbeddings(states=neg, mask=seen if masked else None), 0.7))
    with torch.no_grad():
        got = layer(hidden, encoder_hidden_states=pos)
        q, both = layer.to_q(hidden)[0], torch.cat([pos[0], neg[0][seen[0]]])
        k, v = layer.to_k(both), layer.to_v(both)
        v[3:] *= -0.7
        heads = [(q[:, part] @ k[:, part].T / 2).softmax(-1) @ v[:, part] for part in (slice(0, 4), slice(4, 8))]
        expected = layer.to_out[0](torch.cat(heads, dim=-1))
    torch.testing.assert_close(got[0], expected)


def test_each_step_uses_fresh_noise(model, texts, z):
    positive, negative = texts
    noises = [z, z.flip(0)]
    recipe = sampling_recipe(model, (999, 499))
    got = steered_x0(model, Method("none"), positive, negative, recipe, lambda step: noises[step])
    powers = model.alphas_cumprod()
    first = one_step_x0(
        model, model.network, positive, z, timestep=999, alpha_T=powers[999] ** 0.5, sigma_T=(1 - powers[999]) ** 0.5
    )
    alpha, sigma = powers[499] ** 0.5, (1 - powers[499]) ** 0.5
    second = one_step_x0(
        model, model.network, positive, alpha * first + sigma * noises[1], timestep=499, alpha_T=alpha, sigma_T=sigma
    )
    assert relative(got, second) < 1e-4
    tcd = OneStepRecipe(timesteps=(999, 499), alpha_T=0.6, sigma_T=0.8, steps="tcd")
    with pytest.raises(ValueError, match="supported: consistency, euler"):
        steered_x0(model, Method("none"), positive, None, tcd, lambda step: z)


def test_the_negative_can_act_in_the_first_steps_only(model, texts, z):
    positive, negative = texts
    recipe = sampling_recipe(model, (999, 749, 499))

    def x0(away, **options):
        return steered_x0(model, Method("nasa", 0.5), positive, away, recipe, lambda step: z.roll(step), **options)

    plain, first, two, every = x0(None), x0(negative, steered=1), x0(negative, steered=2), x0(negative)
    assert torch.equal(x0(negative, steered=0), plain) and torch.equal(x0(negative, steered=3), every)
    different = [relative(a, b) for a, b in ((first, plain), (two, first), (every, two), (first, every))]
    assert min(different) > 1e-5


def test_the_recipe_comes_from_the_file_or_the_arguments(model):
    assert sampling_recipe(model) == (model.recipe or sampling_recipe(model, (999,)))
    assert sampling_recipe(model, (399,)).timesteps == (399,)
    with pytest.raises(ValueError, match="ends at 999"):
        sampling_recipe(model, (1000,))


@pytest.mark.parametrize("word", ["nasa:", "nasa:-1", "nasa:inf", "nasa:x", "none:1", "cfg", "other:1", ""])
def test_invalid_methods_are_refused(word):
    with pytest.raises(ValueError, match=r"method '.*': its strength|method '.*' is not known; available: none"):
        Method.parse(word)


def test_nasa_without_alpha_uses_the_files_says_so_and_duplicates_are_merged(capsys):
    assert [str(m) for m in parse_methods(["none", "nasa", "nasa:1.0", "cfg:1.5"], STUDENT)] == [
        "none",
        "nasa:1",
        "cfg:1.5",
    ]
    assert f"method nasa: alpha 1, from {STUDENT}" in capsys.readouterr().err
