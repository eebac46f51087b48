"""Samples are compared with their own prompts by the run's CLIP, and runs with a CLIP loss log it."""

import json

import pytest
import torch
from tiny_clip import write_tiny_clip

from training.config import Clip
from training.distill.clip_loss import ClipLoss
from training.pgsb import main
from training.trainer.monitor.clip_score import clip_score

PROMPTS = ["a ring", "two"]


def test_each_image_is_compared_with_its_own_prompt(tmp_path):
    section = Clip(model=f"local-dir:{write_tiny_clip(tmp_path)}")
    clip = ClipLoss(section, torch.sigmoid, torch.device("cpu"))
    tiles = (torch.rand(2, 3, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).byte()
    want = []
    with torch.no_grad():
        for prompt, images in zip(PROMPTS, tiles, strict=True):
            for image in images:
                a, b = clip.embed_images(image[None] / 255)[0], clip.embed_prompts([prompt])[0]
                want.append((a @ b / a.norm() / b.norm()).item())
    assert clip_score(clip, tiles, PROMPTS) == pytest.approx(sum(want) / len(want), abs=1e-5)
    assert abs(clip_score(clip, tiles, PROMPTS[::-1]) - sum(want) / len(want)) > 1e-4


@pytest.mark.full
def test_a_run_with_the_clip_loss_logs_it(tiny_run, tmp_path):
    clip = [f"clip.model=local-dir:{write_tiny_clip(tmp_path / 'clip')}", "clip.weight=0.1", "clip.pretrained="]
    samples = ["output.sample_every=1", "output.sample_seeds=2", f"output.sample_prompts={json.dumps(PROMPTS)}"]
    assert main(tiny_run(tmp_path / "run", "loop.iterations=1", *clip, *samples)) == 0
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert -1 <= last["sample_clip"] <= 1 and -1 <= last["sample_clip_of_teacher"] <= 1
