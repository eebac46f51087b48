"""Nodes that patch the model or the conditioning, before and after NASA Apply.

Each is compared with a simple implementation of NASA on the host's own network in fp64, with the same node.
"""

from __future__ import annotations

import copy

import comfy.cldm.cldm
import comfy.controlnet
import comfy.gligen
import comfy_extras.nodes_post_processing  # noqa: F401 - before nodes_latent, because they import each other
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.model_patcher import ModelPatcher
from comfyui_version import __version__ as HOST_VERSION
from composed import (
    POSITIVE,
    UNCONDITIONAL,
    assert_close_to_exact,
    assert_identical,
    exact_model,
    prompt,
    sampled,
    steer,
    subject,
    written_out,
)
from host_nodes import has_node, run_node
from host_world import HostStudent
from reference import relative_error
from unets import CONTEXT, SIDE, conditioning

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

CFG = 2.0
MASK = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(6))
_CACHE = {"start_percent": 0.0, "end_percent": 1.0, "verbose": False}
PATCHES = {
    "PerturbedAttentionGuidance": ("nodes_pag", {"scale": 3.0}),
    "NAGuidance": ("nodes_nag", {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5}),
    "RescaleCFG": ("nodes_model_advanced", {"multiplier": 0.7}),
    "ModelSamplingDiscrete": ("nodes_model_advanced", {"sampling": "v_prediction", "zsnr": False}),
    "HyperTile": ("nodes_hypertile", {"tile_size": 32, "swap_size": 2, "max_depth": 0, "scale_depth": False}),
    "TomePatchModel": ("nodes_tomesd", {"ratio": 0.5}),
    "FreeU": ("nodes_freelunch", {"b1": 1.1, "b2": 1.2, "s1": 0.9, "s2": 0.2}),
    "FreeU_V2": ("nodes_freelunch", {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2}),
    "PatchModelAddDownscale": (
        "nodes_model_downscale",
        {
            "block_number": 2,
            "downscale_factor": 2.0,
            "start_percent": 0.0,
            "end_percent": 0.35,
            "downscale_after_skip": True,
            "downscale_method": "bicubic",
            "upscale_method": "bicubic",
        },
    ),
    "CFGZeroStar": ("nodes_cfg", {}),
    "CFGNorm": ("nodes_cfg", {"strength": 0.5}),
    "TCFG": ("nodes_tcfg", {}),
    "Mahiro": ("nodes_mahiro", {}),
    "APG": ("nodes_apg", {"eta": 0.5, "norm_threshold": 5.0, "momentum": 0.1}),
    "FreSca": ("nodes_fresca", {"scale_low": 1.0, "scale_high": 1.5, "freq_cutoff": 2}),
    "Epsilon Scaling": ("nodes_eps.EpsilonScaling", {"scaling_factor": 1.05}),
    "TemporalScoreRescaling": ("nodes_eps", {"tsr_k": 0.9, "tsr_sigma": 10.0}),
    "RenormCFG": ("nodes_lumina2", {"cfg_trunc": 100.0, "renorm_cfg": 1.0}),
    "CFGOverride": ("nodes_custom_sampler", {"cfg": 4.0, "start_percent": 0.0, "end_percent": 1.0}),
    "EasyCache": ("nodes_easycache.EasyCacheNode", {**_CACHE, "reuse_threshold": 1.0}),
    "LazyCache": ("nodes_easycache.LazyCacheNode", {**_CACHE, "reuse_threshold": 1.0}),
    "ContextWindowsManual": (
        "nodes_context_windows.ContextWindowsManualNode",
        {
            "context_length": 2,
            "context_overlap": 0,
            "context_schedule": "standard_static",
            "context_stride": 1,
            "closed_loop": False,
            "fuse_method": "pyramid",
            "dim": 0,
            "freenoise": True,
        },
    ),
    "DifferentialDiffusion": ("nodes_differential_diffusion", {}),
}
OF_PREDICTIONS = ("TemporalScoreRescaling", "RenormCFG", "CFGOverride", "LazyCache")  # the network is not involved
SAMPLING = {  # of the nodes that do nothing in one step, for one picture, or without a noise mask
    "EasyCache": {"steps": 4},
    "LazyCache": {"steps": 4},
    "ContextWindowsManual": {"rows": 4},
    "DifferentialDiffusion": {"steps": 3, "noise_mask": torch.linspace(0, 1, SIDE).expand(1, 1, SIDE, SIDE)},
}


def check(name, patch, positive=None, negative=None, exact_positive=None, exact_patch=None, **sampling):
    """`patch` maps a model to a model; it and extra parts of the conditionings may need conversion to fp64 too."""

    def run(patcher, positive=positive):
        torch.manual_seed(5)  # HyperTile and ToMe choose tiles at random
        return sampled(patcher, positive, negative, cfg=CFG, **sampling)

    plain = subject().patcher
    patched = run(patch(plain))
    assert relative_error(patched, sampled(plain, cfg=CFG, **sampling)) > 1e-4, f"{name} changes nothing here"
    for what, mask in ((name, None), (f"{name}, with a mask", MASK)):
        got = run(steer(patch(plain), mask=mask))
        assert relative_error(got, patched) > 1e-3, "NASA changes nothing here"
        assert_identical(what, "the other order", got, run(patch(steer(plain, mask=mask))))
        exact = run(written_out((exact_patch or patch)(exact_model()), mask), exact_positive or positive)
        assert_close_to_exact(what, relative_error(got, exact))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.full) if name in OF_PREDICTIONS else name for name in PATCHES]
)
def test_a_node_that_patches_the_model(name):
    module, settings = PATCHES[name]
    path = module if "." in module else f"{module}.{name}"
    if not has_node(path):
        pytest.skip(f"ComfyUI {HOST_VERSION} does not have the node")
    check(name, lambda patcher: run_node(path, model=patcher, **settings), **SAMPLING.get(name, {}))


@pytest.mark.full
def test_a_latent_operation():
    operation = run_node("nodes_latent.LatentOperationSharpen", sharpen_radius=2, sigma=1.0, alpha=0.5)
    check(
        "LatentApplyOperationCFG",
        lambda patcher: run_node("nodes_latent.LatentApplyOperationCFG", model=patcher, operation=operation),
    )


def test_a_hypernetwork(host_base):
    """It changes keys and values of the prompt, not of NASA's negative."""
    generator = torch.Generator().manual_seed(3)

    def layer(width):
        weight = 0.5 * torch.randn(width, width, generator=generator) / width**0.5
        return {"linear.0.weight": weight, "linear.0.bias": torch.zeros(width)}

    folder = host_base / "models" / "hypernetworks"
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({width: [layer(width), layer(width)] for width in (CONTEXT, 32, 64)}, folder / "small.pt")

    def patch(patcher):
        path = "nodes_hypernetwork.HypernetworkLoader"
        return run_node(path, model=patcher, hypernetwork_name="small.pt", strength=1.0)

    def exact_patch(patcher):
        patcher = patch(patcher)
        for each in patcher.model_options["transformer_options"]["patches"]["attn2_patch"]:
            for network in each.hypernet.values():
                network.double()
        return patcher

    check("HypernetworkLoader", patch, exact_patch=exact_patch)


class Encoded:
    """A VAE for which every picture has the same latent."""

    def encode(self, pixels):
        return torch.randn(1, 4, SIDE, SIDE, generator=torch.Generator().manual_seed(4))


class SmallSupir(torch.nn.Module):
    """In the place of SUPIR's networks: features of the latent, and adapters that add them."""

    class Control(torch.nn.Module):
        def forward(self, hint, timesteps, x, context, y):
            return [(x + hint).mean(dim=(1, 2, 3), keepdim=True) * number for number in range(20)]

    class Adapter(torch.nn.Module):
        def forward(self, features, h, h_ori=None, control_scale=1.0):
            h = h + 0.05 * control_scale * features
            return h if h_ori is None else torch.cat([h_ori, h], 1)

    def __init__(self):
        super().__init__()
        self.control_model = self.Control()
        self.project_modules = torch.nn.ModuleList(self.Adapter() for _ in range(20))


def test_supir():
    path = "nodes_model_patch.SUPIRApply"
    if not has_node(path):
        pytest.skip(f"ComfyUI {HOST_VERSION} does not have the node")
    supir = ModelPatcher(SmallSupir(), load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    settings = {"strength_start": 1.0, "strength_end": 1.0, "restore_cfg": 0.0, "restore_cfg_s_tmin": 0.05}
    check(
        "SUPIRApply (its networks replaced by small ones)",
        lambda patcher: run_node(
            path, model=patcher, model_patch=supir, vae=Encoded(), image=torch.zeros(1, 64, 64, 3), **settings
        ),
    )


def test_several_gpus():
    """On one device the node does nothing; several were not tried."""
    path = "nodes_multigpu.MultiGPUCFGSplitNode"
    if not has_node(path):
        pytest.skip(f"ComfyUI {HOST_VERSION} does not have the node")
    steered = steer(subject().patcher)
    split = run_node(path, model=steered, max_gpus=2)
    assert not split.get_additional_models_with_key("multigpu"), "there is a second device: test it"
    name = "MultiGPU CFG Split (on one device: several not tried)"
    assert_identical(name, "no node", sampled(split), sampled(steered))


def test_controlnet():
    network = comfy.cldm.cldm.ControlNet(
        image_size=32,
        in_channels=4,
        model_channels=32,
        hint_channels=3,
        num_res_blocks=[1, 1, 1],
        channel_mult=(1, 2, 2),
        transformer_depth=[1, 1, 0],
        transformer_depth_middle=1,
        num_heads=4,
        use_spatial_transformer=True,
        context_dim=CONTEXT,
        legacy=False,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
    )
    control = comfy.controlnet.ControlNet(randomised(network), load_device=torch.device("cpu"))
    image = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(1))
    positive, negative = run_node(
        "ControlNetApplyAdvanced",
        positive=conditioning(prompt(POSITIVE)),
        negative=conditioning(prompt(UNCONDITIONAL)),
        control_net=control,
        image=image,
        strength=0.8,
        start_percent=0.0,
        end_percent=1.0,
    )
    check("ControlNet", lambda patcher: patcher, positive, negative)


def test_gligen():
    clip = HostStudent().clip
    width = clip.encode_from_tokens(clip.tokenize("a"), return_pooled="unprojected")[1].shape[-1]
    blocks = [m for m in subject().patcher.model.diffusion_model.modules() if isinstance(m, BasicTransformerBlock)]
    fusers = [comfy.gligen.GatedSelfAttentionDense(block.attn1.to_q.in_features, width, 4, 8) for block in blocks]
    network = randomised(comfy.gligen.Gligen(fusers, comfy.gligen.PositionNet(width, width), width))
    for fuser in fusers:
        fuser.alpha_attn.fill_(0.5), fuser.alpha_dense.fill_(0.5)

    def positive(network):
        model = ModelPatcher(network, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
        text = conditioning(prompt(POSITIVE))
        box = {"text": "a red circle", "width": 32, "height": 24, "x": 8, "y": 16}
        return run_node("GLIGENTextBoxApply", conditioning_to=text, clip=clip, gligen_textbox_model=model, **box)

    check(
        "GLIGEN", lambda patcher: patcher, positive(network), exact_positive=positive(copy.deepcopy(network).double())
    )


def randomised(network):
    """The host does not initialize these layers."""
    generator = torch.Generator().manual_seed(2)
    for name, weight in network.named_parameters():
        weight.requires_grad_(False)
        if weight.ndim > 1:
            weight.copy_(torch.randn(weight.shape, generator=generator) / weight[0].numel() ** 0.5)
        else:
            weight.fill_(1.0 if name.endswith("weight") else 0.0)
    return network
