import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from snoopi_core.formats.tensor_file import CheckpointError, open_tensor_file, save_atomically


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def write(path, header, body=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def test_weights_in_the_dtype_of_the_file(path):
    weights = {"a": torch.ones(2, dtype=torch.bfloat16), "b": torch.arange(3)}
    save_file(weights, path, metadata={"x": "y"})
    file = open_tensor_file(path)
    assert file.metadata == {"x": "y"} and sorted(file.names) == ["a", "b"]
    read = file.read()
    assert all(torch.equal(read[key], weight) and read[key].dtype == weight.dtype for key, weight in weights.items())
    assert file.read(["b"]).keys() == {"b"}


def test_messages_are_one_short_line_whatever_a_file_holds():
    long = str(CheckpointError("model: " + "\x1b[31m\n\0\ud800" * 100_000 + "; export it again"))
    assert long.startswith(r"model: \x1b[31m\n\x00\ud800") and long.endswith("; export it again")
    assert long.isprintable() and len(long) < 2000
    assert str(CheckpointError("größer: 模型 is damaged")) == "größer: 模型 is damaged"


ENTRY = {"dtype": "F16", "shape": [4], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b'{"a":' + json.dumps(ENTRY).encode() + b',"a":' + json.dumps(ENTRY).encode() + b"}", "names 'a' twice"),
        (
            b'{"__metadata__":{"x":"1","x":"2"},"a":' + json.dumps(ENTRY).encode() + b"}",
            r"names 'x' twice|damaged or cut short",
        ),
        (b"[" * 100_000, "damaged or cut short"),
        (b'{"a":' * 50_000, "damaged or cut short"),
        (b"{}" + b"x" * 20, "damaged or cut short"),
        (b"\xff\xfe" * 20, "damaged or cut short"),
        ({"a": {**ENTRY, "shape": [2**62, 2**62]}}, "damaged or cut short"),
        ({"a": {**ENTRY, "shape": [-4]}}, "damaged or cut short"),
        ({"a": {**ENTRY, "shape": [2**40]}}, "damaged or cut short"),
        ({"a": {**ENTRY, "data_offsets": [0, 2**50]}}, "damaged or cut short"),
        ({"a": {**ENTRY, "dtype": "F12"}}, "damaged or cut short"),
        ({"a": ENTRY, "b": ENTRY}, "damaged or cut short"),
    ],
)
def test_wrong_headers(path, header, message):
    with pytest.raises(CheckpointError, match=message):
        open_tensor_file(write(path, header))


def test_a_header_larger_than_any_models(path):
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", 2**25) + b"{")
        file.truncate(2**25 + 8)
    with pytest.raises(CheckpointError, match="its header claims 33554432 bytes, expected at most 16777216"):
        open_tensor_file(path)


def test_more_tensors_than_any_models(path):
    save_file({str(n): torch.zeros(0) for n in range(20_001)}, path)
    with pytest.raises(CheckpointError, match="holds 20001 tensors, expected at most 20000"):
        open_tensor_file(path)


def test_a_directory_and_a_suffix(tmp_path):
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(CheckpointError, match=r"is not a file; give the path of a .safetensors LoRA"):
        open_tensor_file(tmp_path / "folder.safetensors", "LoRA")
    save_file({"a": torch.zeros(1)}, tmp_path / "model.bin")
    with pytest.raises(CheckpointError, match=r"expected a .safetensors file, got .bin"):
        open_tensor_file(tmp_path / "model.bin")
    for name in ("model.sft", "MODEL.SAFETENSORS"):
        save_file({"a": torch.zeros(1)}, tmp_path / name)
        assert list(open_tensor_file(tmp_path / name).read()) == ["a"]


def test_a_file_that_changes_while_it_is_read(path):
    save_file({"a": torch.zeros(3)}, path)
    file = open_tensor_file(path)
    save_file({"b": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="a weight cannot be read"):
        file.read()


def test_a_failed_write_leaves_nothing(path):
    with pytest.raises(CheckpointError, match=r"1 weight\(s\) are not finite as torch.float32"):
        save_atomically(path, {"a": torch.tensor([float("inf")])}, {})
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\); download it again"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "is a text file, not a model: it begins with 'version https",
        ),
        (b"<!DOCTYPE html>\n<html>", "is a text file, not a model: it begins with '<!DOCTYPE html>'"),
    ],
)
def test_files_of_failed_downloads(path, content, message):
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        open_tensor_file(path)


def test_the_host_shows_no_path_before_the_message():
    assert f"{CheckpointError.__module__}.{CheckpointError.__qualname__}" == "snoopi.CheckpointError"


@pytest.mark.parametrize("size", [640, 896, 1152, 1408, 0x10280])
def test_a_header_whose_size_begins_like_a_pickle_is_read(tmp_path, size):
    """0x280 = 640 is stored as 80 02 00 ..., the first bytes of a pickle of protocol 2."""
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2)}, path)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    path.write_bytes(size.to_bytes(8, "little") + data[8 : 8 + length].ljust(size) + data[8 + length :])
    assert torch.equal(open_tensor_file(path).read()["a"], torch.ones(2))
