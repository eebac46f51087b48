"""PG-SB Loader: every key of the published networks is matched, at full size and without their memory."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

import comfy.utils
import pytest
import torch
from effort import some
from exports import assert_refused
from figures import measured
from full_size import NETWORKS, PIXARTS, UNETS, diffusers_weights, meta_network, single_file_weights, write_sparse

from snoopi_core.formats.checkpoint import Metadata, find_metadata, read_parts
from snoopi_core.formats.joined_layouts import pixart_location
from snoopi_core.formats.layouts import unet_rename
from snoopi_core.formats.tensor_file import open_tensor_file
from snoopi_core.host.loading.build import check_network, model_config
from snoopi_core.host.loading.recognise import recognise

pytestmark = pytest.mark.host

PREFIX = "model.diffusion_model."
KINDS = {
    "SD1.5": "SD15", "SD2.1": "SD20", "SDXL": "SDXL", "SDXL refiner": "SDXLRefiner", "SSD-1B": "SSD1B",
    "Vega": "Segmind_Vega", "PixArt-alpha 512": "PixArtSigma", "PixArt-alpha 1024": "PixArtAlpha",
    "PixArt-sigma 1024": "PixArtSigma",
}  # fmt: skip
# The contract's UNets have cross-attention in the middle and one depth a level.
CONTRACT = [name for name in NETWORKS if name not in ("SSD-1B", "Vega")]


def memory(entry):
    """Memory of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(entry))


@pytest.fixture(scope="module", autouse=True)
def little_memory():
    """The files have up to 5 GB each, but only PixArt's fused weights are allocated, 0.5 GB."""
    if not Path("/proc/self/clear_refs").exists():
        yield
        return
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the peak
    before = memory("VmRSS")
    yield
    grown = (memory("VmHWM") - before) / 2**30
    measured("loader", "full-size key sets", "GiB allocated", grown, 1.5)


def wrong(weights, expected):
    """How many names or shapes differ."""
    return len(weights.keys() ^ expected.keys()) + sum(
        weights[key].shape != expected[key].shape for key in weights.keys() & expected.keys()
    )


def host_network(name):
    """Keys and shapes by the host's own table of names, which is independent of the code for single files."""
    weights = diffusers_weights(name)
    if name in PIXARTS:
        table = comfy.utils.pixart_to_diffusers({"depth": 28, "hidden_size": 1152})
        out = {}
        for key, weight in weights.items():
            target = table[key]
            fused = target if isinstance(target, str) else target[0]
            rows = weight.shape[0] + (out[fused].shape[0] if fused in out else 0)
            out[fused] = torch.empty(rows, *weight.shape[1:], device="meta")
        return out
    config = recognise_shapes(name).config
    table = comfy.utils.unet_to_diffusers(config.unet_config)
    return {table[key]: weight for key, weight in weights.items()}


@functools.cache
def recognise_shapes(name):
    with tempfile.TemporaryDirectory() as folder:
        return recognise(open_tensor_file(write_sparse(Path(folder) / "n.safetensors", diffusers_weights(name))))


@pytest.mark.both_hosts
@pytest.mark.parametrize("name", some(NETWORKS, 3))
def test_diffusers_layout(tmp_path, name):
    found = recognise(open_tensor_file(write_sparse(tmp_path / "unet.safetensors", diffusers_weights(name))))
    assert (found.kind, found.layout) == (KINDS[name], "diffusers") and not found.harmless
    expected = host_network(name)
    network = {key: weight for key, weight in found.network.items() if key != "y_embedder.y_embedding"}
    measured("loader", f"{name} diffusers layout", "wrong keys", wrong(network, expected), 0)


@pytest.mark.parametrize("name", some(NETWORKS, 3))
@pytest.mark.parametrize("prefix", [PREFIX, ""], ids=["prefixed", "bare"])
def test_single_file(tmp_path, name, prefix):
    weights = host_network(name)
    path = write_sparse(tmp_path / "single.safetensors", {prefix + key: weight for key, weight in weights.items()})
    found = recognise(open_tensor_file(path))
    assert (found.kind, found.layout) == (KINDS[name], "single file" if prefix else "bare")
    network = {key: weight for key, weight in found.network.items() if key != "y_embedder.y_embedding"}
    measured("loader", f"{name} single file", "wrong keys", wrong(network, weights), 0)


@pytest.mark.parametrize("name", some(CONTRACT, 2))
def test_our_export(tmp_path, name):
    metadata = Metadata(
        title=name, role="student", family="pixart" if name in PIXARTS else "unet", prediction_type="epsilon",
        latent_scale=0.18215, unet=dict(meta_network(name).config),
    )  # fmt: skip
    weights = {PREFIX + key: weight for key, weight in single_file_weights(name).items()}
    header = {"snoopi.format": "1", "snoopi.model": metadata.model_dump_json()}
    file = open_tensor_file(write_sparse(tmp_path / "ours.safetensors", weights, metadata=header))
    read = read_parts(file, find_metadata(file))
    check_network(model_config(read.metadata), read.unet)
    measured("loader", f"{name} our export", "wrong keys", wrong(read.unet, host_network(name)), 0)


@pytest.mark.parametrize("name", CONTRACT)
def test_our_names_are_the_hosts(name):
    if name in PIXARTS:
        ours = {pixart_location(key)[0] for key in diffusers_weights(name)}
    else:
        ours = {unet_rename(UNETS[name])(key) for key in diffusers_weights(name)}
    assert ours == host_network(name).keys()


@pytest.mark.parametrize("name", some(["SD1.5", "SDXL", "PixArt-alpha 512"], 1))
@pytest.mark.parametrize("layout", ["diffusers", "single"])
def test_what_is_missing_or_extra_is_named(tmp_path, name, layout):
    weights = dict(diffusers_weights(name) if layout == "diffusers" else host_network(name))
    biases = [key for key in weights if key.endswith((".proj_out.bias", "attn.proj.bias", "attn1.to_out.0.bias"))]
    gone = biases[len(biases) // 2]
    del weights[gone]
    weights["stranger.weight"] = torch.empty(2, 2, device="meta")
    path = write_sparse(tmp_path / "odd.safetensors", weights)
    assert_refused(path, r"do not match: missing \S+bias; not expected stranger.weight$")
