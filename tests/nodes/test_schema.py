"""Stable interface for workflows: ids, inputs and outputs do not change, and every text is in one place only."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import subprocess
import sys
from collections import Counter
from importlib import resources

import pytest

pytestmark = [pytest.mark.host, pytest.mark.both_hosts]

INPUTS = {
    "SnoopiPGSBLoader": {"ckpt_name": "COMBO", "lora_name": "COMBO", "latents": "COMBO"},
    "SnoopiNASAApply": {
        "model": "MODEL",
        "negative": "CONDITIONING",
        "alpha": "FLOAT",
        "start_percent": "FLOAT",
        "end_percent": "FLOAT",
        "blocks": "STRING",
        "mask": "MASK",
        "alpha_mode": "COMBO",
        "method": "COMBO",
        "nag_tau": "FLOAT",
        "nag_blend": "FLOAT",
        "vsf_beta": "FLOAT",
    },
    "SnoopiOneStepSampler": {
        "model": "MODEL",
        "positive": "CONDITIONING",
        "latent_image": "LATENT",
        "seed": "INT",
        "timesteps": "STRING",
        "preset": "COMBO",
    },
    "SnoopiNASAScaleSweep": {
        "model": "MODEL",
        "positive": "CONDITIONING",
        "negative": "CONDITIONING",
        "latent_image": "LATENT",
        "vae": "VAE",
        "alphas": "STRING",
        "seed": "INT",
        "timesteps": "STRING",
        "preset": "COMBO",
        "sampler": "SAMPLER",
        "sigmas": "SIGMAS",
    },
    "SnoopiNASAInspect": {
        "model": "MODEL",
        "positive": "CONDITIONING",
        "latent_image": "LATENT",
        "seed": "INT",
        "preset": "COMBO",
    },
}
OUTPUTS = {
    "SnoopiPGSBLoader": ["MODEL", "CLIP", "VAE"],
    "SnoopiNASAApply": ["MODEL"],
    "SnoopiOneStepSampler": ["LATENT"],
    "SnoopiNASAScaleSweep": ["IMAGE", "IMAGE", "FLOAT"],
    "SnoopiNASAInspect": ["IMAGE", "STRING"],
}


@pytest.fixture(scope="module")
def schemas(pack):
    async def ask():
        extension = await pack.comfy_entrypoint()
        return {node.GET_SCHEMA().node_id: node.GET_SCHEMA() for node in await extension.get_node_list()}

    return asyncio.run(ask())


def test_tools_that_do_not_import_the_pack_find_the_same_nodes(pack_root, schemas):
    """comfy-test and ComfyUI-Manager read the names in a literal NODE_CLASS_MAPPINGS. The host must not find it."""
    tree = ast.parse((pack_root / "nodes" / "__init__.py").read_text(encoding="utf-8"))
    (mappings,) = [node.value for node in tree.body if isinstance(node, ast.Assign)]
    assert [key.value for key in mappings.keys] == list(schemas)


def test_the_host_asks_the_extension(pack):
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")


def test_nodes_inputs_and_outputs_are_frozen(schemas):
    assert {name: {i.id: i.io_type for i in schema.inputs} for name, schema in schemas.items()} == INPUTS
    assert {name: [o.io_type for o in schema.outputs] for name, schema in schemas.items()} == OUTPUTS


def test_prompts_without_the_newer_inputs_are_still_complete(schemas):
    """In prompts from scripts, the host requires every input that is not optional, even with a default."""
    optional = {name: [i.id for i in schema.inputs if i.optional] for name, schema in schemas.items()}
    assert "preset" in optional["SnoopiOneStepSampler"]
    assert optional["SnoopiNASAApply"] == ["mask", "alpha_mode", "method", "nag_tau", "nag_blend", "vsf_beta"]


def test_only_the_rarely_used_inputs_are_advanced(schemas):
    advanced = [i.id for schema in schemas.values() for i in schema.inputs if getattr(i, "advanced", None)]
    assert advanced == ["latents", "start_percent", "end_percent", "blocks", "nag_tau", "nag_blend", "vsf_beta"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("sd turbo", {"SnoopiNASAApply", "SnoopiOneStepSampler"}),
        ("alpha", {"SnoopiNASAApply", "SnoopiNASAInspect"}),
        ("negative prompt", {"SnoopiNASAApply"}),
    ],
)
def test_words_that_people_type_are_search_aliases(pack, words, found):
    """As the server tells them to the front end, which looks for all words in the same alias."""

    async def ask():
        extension = await pack.comfy_entrypoint()
        return [node.GET_NODE_INFO_V1() for node in await extension.get_node_list()]

    infos = asyncio.run(ask())
    assert {info["name"] for info in infos if words in info["search_aliases"]} >= found


@pytest.fixture(scope="module")
def english(schemas):
    """Every text of the schemas; the front end shows these unless locales/ has the text in the user's language."""
    return {
        name: {
            "display_name": schema.display_name,
            "description": schema.description,
            "inputs": {i.id: {"tooltip": i.tooltip} for i in schema.inputs},
            "outputs": {str(n): {"tooltip": o.tooltip} for n, o in enumerate(schema.outputs)},
        }
        for name, schema in schemas.items()
    }


def test_every_output_has_a_tooltip(english):
    assert all(o["tooltip"] for entry in english.values() for o in entry["outputs"].values())


def test_the_english_locale_has_the_names_alone(pack_root, english):
    """The title of the canvas's right-click menu: it looks node ids up in locales/ only, never in the schema."""
    names = {name: {"display_name": texts["display_name"]} for name, texts in english.items()}
    assert json.loads((pack_root / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8")) == names


@pytest.mark.parametrize("language", ["fr", "ja", "ko", "zh"])
def test_a_translation_has_every_text_and_the_same_names(pack_root, english, language):
    """Names of nodes, inputs and choices are not translated: help pages and messages use them."""
    translated = json.loads((pack_root / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    english, translated = (dict(_texts(each)) for each in (english, translated))
    assert list(english) == list(translated)
    for place, text in english.items():
        if place.endswith("display_name"):
            assert translated[place] == text
        else:
            assert translated[place] and translated[place] != text, place
        for number in re.findall(r"\d+(?:\.\d+)?", text):
            assert number in translated[place], f"{place} has no {number}"
        for value in re.findall(r'"([^"]+)"', text):  # to be typed or chosen, so not translated
            assert value in translated[place], f"{place} has no {value}"
        assert len(translated[place]) <= 1.5 * len(text) + 20, f"{place} is much longer than in English"


@pytest.mark.parametrize("language", ["fr", "ja", "ko", "zh"])
def test_a_translation_has_every_message_of_the_front_end_part(pack_root, language):
    """Those that web/errors.js shows; the nodes' own messages are in English, as ComfyUI's are."""
    english, translated = (
        json.loads((pack_root / "locales" / each / "main.json").read_text(encoding="utf-8"))["snoopi"]
        for each in ("en", language)
    )
    assert list(english) == list(translated)
    used = (pack_root / "web" / "errors.js").read_text(encoding="utf-8")
    for key, text in english.items():
        assert f'"{key}"' in used
        assert translated[key] != text and len(translated[key]) <= 1.5 * len(text) + 20, key
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", translated[key])), key


@pytest.fixture(scope="module")
def front_end_locales():
    """Language -> file -> the front end's own translations; their source is in its source maps."""
    found = {}
    package = resources.files("comfyui_frontend_package") / "static" / "assets"
    for file in package.iterdir():
        if re.fullmatch(r"(main|nodeDefs)-.*\.js\.map", file.name):
            content = json.loads(file.read_text(encoding="utf-8"))
            for source, text in zip(content["sources"], content["sourcesContent"], strict=True):
                if match := re.search(r"/locales/([^/]+)/(main|nodeDefs)\.json$", source):
                    found.setdefault(match[1], {})[match[2]] = json.loads(text)
    return found


# As our English texts have it -> a data type of the host, or an input that several of its nodes have.
TERMS = {
    "sampler": "SAMPLER",
    "latent": "LATENT",
    "mask": "MASK",
    "model": "MODEL",
    "image": "IMAGE",
    "seed": "seed",
    "number of steps": "steps",
    "strength": "strength",
    "the negative(?! prompt)": "negative",
    "scheduler": "scheduler",
}


@pytest.mark.parametrize("language", ["fr", "ja", "ko", "zh"])
def test_terms_are_those_of_the_hosts_own_translations(pack_root, english, front_end_locales, language):
    """Of several words for an input, the one that most of the host's nodes have."""
    host = front_end_locales[language]
    translated = json.loads((pack_root / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    english, translated = (dict(_texts(each)) for each in (english, translated))
    wrong = []
    for term, key in TERMS.items():
        names = (entry.get("inputs", {}).get(key, {}).get("name") for entry in host["nodeDefs"].values())
        used = Counter(name for name in names if name not in (None, key))
        word = host["main"]["dataTypes"].get(key) or used.most_common(1)[0][0]
        places = [place for place, text in english.items() if re.search(rf"\b{term}s?\b", text)]
        assert places, f"no text of ours has {term}"
        wrong += [(place, word) for place in places if word.casefold() not in translated[place].casefold()]
    assert wrong == []


def _texts(node, place=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _texts(value, f"{place}{key}.")
        else:
            yield place + key, value


def test_the_pack_is_a_v3_extension_only(pack):
    assert not hasattr(pack, "NODE_CLASS_MAPPINGS")


def test_without_the_host_the_pack_does_nothing(pack_root):
    """Packaging tools and test runners import it outside ComfyUI."""
    code = (
        "import importlib.util, sys\n"
        f"spec = importlib.util.spec_from_file_location('pack', {str(pack_root / '__init__.py')!r}, "
        f"submodule_search_locations=[{str(pack_root)!r}])\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules['pack'] = module\n"
        "spec.loader.exec_module(module)\n"
        "assert not hasattr(module, 'comfy_entrypoint') and 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


@pytest.mark.parametrize(
    ("timesteps", "answer"),
    [
        ("auto", True),
        ("999, 749, 499, 249", True),
        (None, True),
        ("ten", "'ten' is not a whole number"),
        ("", "timesteps is empty"),
        ("1200, 1000", True),  # a model may have more than a thousand
        ("9" * 5000, "is above the model's last timestep"),
    ],
)
def test_timesteps_are_checked_before_anything_runs(pack, timesteps, answer):
    import importlib

    node = importlib.import_module("snoopi_pack.nodes.one_step_sampler").OneStepSampler
    got = node.validate_inputs(timesteps=timesteps)
    assert got is True if answer is True else answer in got
