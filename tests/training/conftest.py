"""A tiny teacher on disk, and the settings of a run on it that takes a moment."""

import pytest
from tiny import tiny_backbone

from training.trainer.export import export_backbone


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Arguments of a run in a folder, with more of them."""
    place = tmp_path_factory.mktemp("teacher")
    teacher = export_backbone(place / "teacher.safetensors", tiny_backbone("v_prediction"), title="t", role="teacher")
    prompts = place / "prompts.txt"
    prompts.write_text("a ring\na red square\nblue\na plus and a ring\ntwo\n", encoding="utf-8")

    def arguments(folder, *more):
        return [
            *("--recipe", "shapes", "--cpu"),
            f"teacher.path={teacher}",
            f"prompts.source={prompts}",
            f"output.folder={folder}",
            "lora.targets=attention_qv",
            "loop.batch_size=2",
            "loop.warmup=0",
            "output.sample_every=0",
            "output.log_every=1",
            "output.trackers=[]",
            *more,
        ]

    return arguments
