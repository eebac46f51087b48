"""Cached text embeddings equal the encoded ones; wrong or damaged caches are detected."""

import shutil
from pathlib import Path

import pytest
import torch
from published import save_folder
from tiny import tiny_backbone, tiny_pixart_backbone
from trainer import start_distributed

from training.config import Teacher, load_recipe
from training.models.loading import describe_encoder, load_teacher
from training.models.text_cache import TextCache
from training.models.text_cache.build import build_shards, finish
from training.models.text_cache.manifest import MANIFEST, check_same_encoder
from training.models.text_embeddings import TextEmbeddings
from training.pgsb import main as pgsb
from training.prompts.encode import main
from training.trainer.build import open_run_prompts

PROMPTS = ["", *(f"a photo of {'very ' * (n % 5)}thing {n}" for n in range(37)), "long " * 100]
ENCODER = {"family": "pixart", "max_tokens": 120, "width": 32, "weights": {"a": "1"}, "source": "here"}


@pytest.fixture(scope="module")
def pixart():
    return tiny_pixart_backbone(dtype=torch.bfloat16)


class Encoder:
    """A backbone's text encoder that records its prompts, and stops after `last` batches."""

    def __init__(self, backbone, last=None):
        self.backbone, self.last, self.batches = backbone, last, []

    @torch.no_grad()
    def __call__(self, prompts):
        if len(self.batches) == self.last:
            raise KeyboardInterrupt
        self.batches.append(list(prompts))
        return self.backbone.family.encode(self.backbone.text_encoder, self.backbone.tokenizer, prompts)

    def count_tokens(self, prompts):
        return self.backbone.family.count_tokens(self.backbone.tokenizer, prompts)

    @property
    def seen(self):
        return [prompt for batch in self.batches for prompt in batch]


def build(folder, encoder, prompts=PROMPTS, identity=ENCODER, **settings):
    build_shards(folder, prompts, encoder, encoder.count_tokens, identity, batch_size=8, shard_prompts=16, **settings)


def built(folder, backbone, prompts=PROMPTS, identity=ENCODER, masked=True):
    build(folder, Encoder(backbone), prompts, identity)
    finish(folder, identity, masked=masked)
    return TextCache.open(folder, identity)


def assert_same(text, expected):
    assert text.states.dtype == torch.bfloat16
    assert torch.equal(text.mask, expected.mask)
    assert torch.equal(text.states[text.mask], expected.states.bfloat16()[expected.mask])
    assert not text.states[~text.mask].any()


def test_a_lookup_equals_encoding_in_bf16(pixart, tmp_path):
    cache, encode = built(tmp_path, pixart), Encoder(pixart)
    for start in range(0, len(PROMPTS), 8):  # in the same batches as in the cache, since rounding depends on the batch
        prompts = PROMPTS[start : start + 8]
        assert_same(cache.lookup(prompts), encode(prompts))
    mixed = [PROMPTS[n] for n in (38, 3, 0, 20, 3)]
    each = [cache.lookup([prompt]) for prompt in mixed]
    together = cache.lookup(mixed)
    assert torch.equal(together.states, torch.cat([text.states for text in each]))
    assert together.states.shape == (5, 120, 32)
    assert together.mask.sum(1).tolist()[0] == 120
    assert cache.count_tokens(mixed) == encode.count_tokens(mixed)
    assert cache.count_tokens(mixed)[0] > 120


def test_the_network_gives_the_same_with_cached_text(pixart, tmp_path):
    cache, prompts = built(tmp_path, pixart, PROMPTS[:4]), PROMPTS[:4]
    x, t = torch.randn(4, 4, 8, 8), torch.tensor([1, 300, 600, 999])
    network = tiny_pixart_backbone().network
    outputs = [
        pixart.call(network, x, t, text.to(x.device, torch.float32))
        for text in (cache.lookup(prompts), Encoder(pixart)(prompts))
    ]
    assert torch.equal(*outputs)


def test_clip_has_no_mask_and_keeps_all_its_tokens(tmp_path):
    backbone = tiny_backbone()
    identity = ENCODER | {"family": "unet", "max_tokens": 77}
    text = built(tmp_path, backbone, PROMPTS[:8], identity, masked=False).lookup(PROMPTS[:8])
    assert text.mask is None
    assert torch.equal(text.states, Encoder(backbone)(PROMPTS[:8]).states.bfloat16())


def test_missing_prompts_are_reported_or_encoded(pixart, tmp_path):
    cache, encode = built(tmp_path, pixart), Encoder(pixart)
    wanted = [PROMPTS[1], "new one", PROMPTS[2], "new two"]
    with pytest.raises(ValueError, match=r"2 of 4 prompts are not in the text cache .*first 'new one'; build it"):
        cache.lookup(wanted)
    with pytest.raises(ValueError, match=r"1 of 1 prompts"):
        cache.count_tokens(["new one"])
    text = cache.lookup(wanted, encode)
    assert encode.seen == ["new one", "new two"]
    assert torch.equal(text.states[::2], cache.lookup(wanted[::2]).states)
    assert_same(text[1::2], Encoder(pixart)(wanted[1::2]))
    cache.check_holds(iter(PROMPTS))
    with pytest.raises(ValueError, match=r"3 of 9003 prompts are not in .*, first 'x'"):
        cache.check_holds(["a photo of thing 0"] * 8000 + ["x", "y"] + [""] * 1000 + ["z"])


def test_shards_are_limited_in_size_and_hold_every_prompt_once(pixart, tmp_path):
    encode = Encoder(pixart)
    build(tmp_path, encode, PROMPTS * 3)
    assert sorted(encode.seen) == sorted(PROMPTS)
    manifest = finish(tmp_path, ENCODER, masked=True)
    assert [shard.name for shard in sorted(tmp_path.glob("*.safetensors"))] == list(manifest["shards"])
    assert len(manifest["shards"]) == 3
    assert manifest["prompts"] == len(PROMPTS)
    assert manifest["tokens"] == sum(min(count, 120) for count in encode.count_tokens(PROMPTS))
    assert manifest["bytes"] == sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))


def test_processes_share_the_work_and_a_later_build_adds_only_new_prompts(pixart, tmp_path):
    encoders = [Encoder(pixart) for _ in range(3)]
    for rank, encode in enumerate(encoders):
        build(tmp_path, encode, rank=rank, processes=3)
    shares = [set(encode.seen) for encode in encoders]
    assert set.union(*shares) == set(PROMPTS)
    assert sum(map(len, shares)) == len(PROMPTS)
    assert all(shares)
    finish(tmp_path, ENCODER, masked=True)
    one_more = Encoder(pixart)
    build(tmp_path, one_more, [*PROMPTS, "one more"])
    assert one_more.seen == ["one more"]
    TextCache.open(tmp_path, ENCODER).check_holds(PROMPTS)
    finish(tmp_path, ENCODER, masked=True)
    TextCache.open(tmp_path, ENCODER).check_holds([*PROMPTS, "one more"])


@pytest.mark.parametrize("last", [0, 1, 2, 3, 4])
def test_an_interrupted_build_resumes(pixart, tmp_path, last):
    first, second = Encoder(pixart, last), Encoder(pixart)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path, first)
    with pytest.raises(FileNotFoundError, match=r"it holds .*; build it"):
        TextCache.open(tmp_path, ENCODER)
    (tmp_path / ".0000-000001.safetensors.x.tmp").write_bytes(b"half a shard")
    build(tmp_path, second)
    written = 16 * (last // 2)
    assert second.seen == PROMPTS[written:], "finished prompts are encoded again, or others are missing"
    finish(tmp_path, ENCODER, masked=True)
    TextCache.open(tmp_path, ENCODER).check_holds(PROMPTS)
    assert not list(tmp_path.glob("*.tmp")) and not list(tmp_path.glob(".*"))


def test_every_damaged_byte_is_detected(pixart, tmp_path):
    sound = built(tmp_path, pixart, PROMPTS[:9]).lookup(PROMPTS[:9]).states
    for path in (tmp_path / "0000-000000.safetensors", tmp_path / MANIFEST):
        whole = path.read_bytes()
        for at in range(0, len(whole), 1 + len(whole) // 150):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x15]) + whole[at + 1 :])
            try:
                cache = TextCache.open(tmp_path, ENCODER)
                cache.lookup(PROMPTS[:9])
            except ValueError as error:
                assert str(tmp_path) in str(error)
            else:  # the encoder's name in a shard's header, which the manifest contains too
                assert path.name != MANIFEST
                assert 8 < at < 8 + int.from_bytes(whole[:8], "little")
                path.write_bytes(whole)
                assert torch.equal(cache.lookup(PROMPTS[:9]).states, sound)
        path.write_bytes(whole)


def test_a_shard_that_is_missing_or_cut_short_is_named(pixart, tmp_path):
    built(tmp_path, pixart)
    path = tmp_path / "0000-000001.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(ValueError, match=r"0000-000001\.safetensors is missing or cut short; delete it"):
        TextCache.open(tmp_path, ENCODER)
    with pytest.raises(ValueError, match=r"0000-000001\.safetensors is damaged"):
        build(tmp_path, Encoder(pixart))
    path.unlink()
    with pytest.raises(ValueError, match=r"0000-000001\.safetensors is missing"):
        TextCache.open(tmp_path, ENCODER)
    again = Encoder(pixart)
    build(tmp_path, again)
    assert again.seen == PROMPTS[16:32], "more than the lost prompts is encoded again"


@pytest.mark.parametrize(
    "key, value", [("family", "unet"), ("max_tokens", 300), ("width", 64), ("weights", {"a": "2"})]
)
def test_another_encoder_is_refused(pixart, tmp_path, key, value):
    built(tmp_path, pixart, PROMPTS[:3])
    other = ENCODER | {key: value, "source": "there"}
    for attempt in (lambda: TextCache.open(tmp_path, other), lambda: build(tmp_path, Encoder(pixart), identity=other)):
        with pytest.raises(ValueError, match=rf"another encoder, 'here', than this teacher's, 'there' \({key}"):
            attempt()


def test_an_encoder_is_identified_by_its_files_if_present(tmp_path):
    backbone = tiny_pixart_backbone()
    for name, seed in (("one", 0), ("two", 1)):
        tiny_pixart_backbone(seed=seed).text_encoder.save_pretrained(tmp_path / name / "text_encoder")
    one, two = (describe_encoder(Teacher(path=str(tmp_path / name)), backbone) for name in ("one", "two"))
    alone = describe_encoder(
        Teacher(path="x.safetensors", text_encoder=str(tmp_path / "one" / "text_encoder")), backbone
    )
    absent = describe_encoder(Teacher(path="nobody/nothing"), backbone)
    assert one["width"] == 32 and list(one["weights"]) == ["model.safetensors"]
    check_same_encoder(one, alone, tmp_path)
    check_same_encoder(one, absent, tmp_path)  # a machine without the encoder's weights can use the cache
    with pytest.raises(ValueError, match="another encoder"):
        check_same_encoder(one, two, tmp_path)


def test_non_finite_embeddings_are_not_stored(pixart, tmp_path):
    class Broken(Encoder):
        def __call__(self, prompts):
            text = super().__call__(prompts)
            return TextEmbeddings(states=text.states * float("nan"), mask=text.mask)

    with pytest.raises(ValueError, match="not finite"):
        build(tmp_path, Broken(pixart))
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.fixture
def teacher(tmp_path):
    return save_folder(tmp_path / "teacher", "pixart")


@pytest.mark.slow
def test_a_run_with_a_built_cache_needs_no_encoder(teacher, tmp_path, caplog):
    def command(*more, expect):
        caplog.clear()
        assert main(["--cpu", *settings, *more]) == 0
        assert expect in caplog.text

    source = tmp_path / "prompts.txt"
    source.write_text("".join(f"{prompt}\n" for prompt in PROMPTS), encoding="utf-8")
    settings = [
        *("--recipe", "shapes", f"teacher.path={teacher}", f"prompts.source={source}"),
        *(f"prompts.text_cache={tmp_path / 'cache'}", 'output.sample_prompts=["a sample"]'),
    ]
    command("--dry-run", expect="41 prompts, 41 of them not yet in")
    assert not (tmp_path / "cache").exists()
    pair = start_distributed(tmp_path / "log", "--cpu", *settings, command=main)
    assert "41 prompts in 2 shard(s)" in "".join(process.end() for process in pair)
    command(expect="41 prompts, all of them in")

    source.write_text(source.read_text(encoding="utf-8") + "a new one\n", encoding="utf-8")
    recipe = load_recipe("shapes", settings[2:])
    backbone = load_teacher(recipe.teacher, text_cache=recipe.prompts.text_cache)
    assert backbone.text_encoder is None and backbone.tokenizer is None
    with pytest.raises(ValueError, match=r"1 of 42 prompts are not in the text cache .*, first 'a new one'"):
        open_run_prompts(recipe, backbone)
    command(expect="42 prompts, 1 of them not yet in")
    backbone = load_teacher(recipe.teacher, text_cache=recipe.prompts.text_cache)
    stream = open_run_prompts(recipe, backbone)
    prompts = stream.take(len(PROMPTS) - 1)
    assert stream.counts["over-long"] == 1
    whole = load_teacher(recipe.teacher)
    cached, encoded = backbone.encode(prompts), whole.encode(prompts)
    assert cached.states.dtype == torch.float32
    assert torch.equal(cached.mask, encoded.mask)
    # equal up to rounding, since they were encoded in other batches
    torch.testing.assert_close(cached.states[cached.mask], encoded.states[cached.mask], rtol=0.02, atol=0.02)

    for part in ("text_encoder", "tokenizer"):
        shutil.rmtree(Path(teacher) / part)
    run = [
        *("--cpu", *settings, f"output.folder={tmp_path / 'run'}", "loop.iterations=2", "loop.warmup=0"),
        *("loop.batch_size=2", "output.sample_every=1", "student.nasa_alpha_max=1", "loop.latent_size=34"),
    ]
    assert pgsb(run) == 0
    assert (tmp_path / "run" / "export" / "student.safetensors").is_file()


def test_the_command_lists_missing_arguments(teacher, tmp_path, capsys):
    settings = ["--cpu", "--recipe", "shapes", f"teacher.path={teacher}"]
    assert main(settings) == 2
    assert "add prompts.text_cache=FOLDER" in capsys.readouterr().err
    assert main([*settings, f"prompts.text_cache={tmp_path / 'cache'}"]) == 2
    assert "generated without end" in capsys.readouterr().err
