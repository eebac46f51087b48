"""TF32 and cuDNN's search are set on CUDA only, and the run says what they do. torch takes the flags without a GPU."""

import pytest
import torch
from accelerate.utils import DistributedType

from training.config import load_recipe
from training.trainer.distributed.cuda_speed import use_cuda_settings


def flags():
    return (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark)


@pytest.fixture
def restored():
    before = flags()
    yield before
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before


def use(device, *overrides, kind=DistributedType.NO):
    return use_cuda_settings(load_recipe("shapes", overrides), torch.device(device), kind)


def test_settings_of_cuda(restored, monkeypatch):
    assert use("cpu").endswith("act on CUDA only: no effect on cpu") and flags() == restored
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: True)
    assert use("cuda") == "loop.tf32: on; loop.cudnn_benchmark: on; loop.channels_last: on"
    assert flags() == (True, True, True)
    monkeypatch.setattr(torch.cuda, "is_tf32_supported", lambda: False)
    assert "loop.tf32: no effect, since this device has none" in use("cuda")
    off = ["loop.tf32=false", "loop.cudnn_benchmark=false", "loop.channels_last=false"]
    assert use("cuda", *off) == "loop.tf32: off; loop.cudnn_benchmark: off; loop.channels_last: off"
    assert flags() == (False, False, False)


def test_channels_last_says_where_it_does_not_apply(restored):
    assert "loop.channels_last: no effect with FSDP" in use("cuda", kind=DistributedType.FSDP)
    assert "no effect with loop.optimizer=adamw8bit" in use("cuda", "loop.optimizer=adamw8bit")
    assert "loop.channels_last: off" in use("cuda", "loop.channels_last=false", kind=DistributedType.FSDP)
