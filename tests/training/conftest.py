"""A tiny teacher on disk, and the arguments of a short run with it."""

import pytest
from tiny import STOCK_SCALE, tiny_backbone

from training.trainer.export import export_backbone


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """Gives the arguments of a run in a folder, followed by others."""
    place = tmp_path_factory.mktemp("teacher")
    backbone = tiny_backbone("v_prediction", latent_scale=STOCK_SCALE)
    teacher = export_backbone(place / "teacher.safetensors", backbone, title="t", role="teacher")
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
