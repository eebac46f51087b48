"""The command for a GPU runs on a CPU with tiny networks, and no measurement in it fails."""

import pytest
from train_gpu import HEAD, SETTINGS, main, recipes


@pytest.mark.full
@pytest.mark.slow
def test_the_command_can_be_tried_without_a_gpu(tmp_path):
    chosen = ["sd15_lora_4step_12gb", "pixart_24gb"]
    main(["--dry-run", "--recipes", *chosen, "--minutes", "60", "--out", str(tmp_path / "table.md")])
    title, empty, head, _, *rows = (tmp_path / "table.md").read_text(encoding="utf-8").splitlines()
    assert title.startswith("dry run") and not empty and head == HEAD
    names = [row.split(" | ")[0].removeprefix("| ") for row in rows]
    settings = [f"sd15, {name}" for name in SETTINGS]
    checkpoints = ["checkpoint of sd15", "the same, output.background_save"]
    assert names == [*chosen, *settings[:-1], *checkpoints, settings[-1]]
    assert all(row.count(" | ") == HEAD.count(" | ") and "Error" not in row for row in rows), "\n".join(rows)
    # on a CPU the settings of CUDA change nothing, and bf16 does
    assert "x0 0.0e+00" in rows[names.index("sd15, fp32, loop.tf32")]
    assert "x0 0.0e+00" not in rows[names.index("sd15, bf16")]


def test_without_a_gpu_it_says_how_to_try_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(["--out", str(tmp_path / "table.md")])
    assert "--dry-run tries the command on a CPU" in capsys.readouterr().err
    assert {"sd15_24gb", "sdxl_lora_4step", "pixart_12gb", "sd21"} < set(recipes()) and "shapes" not in recipes()
