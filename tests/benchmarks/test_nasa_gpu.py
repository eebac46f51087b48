"""The command for a GPU runs on a CPU with small networks."""

import pytest
from nasa_gpu import BACKENDS, TYPES, WIDTHS, main

pytestmark = pytest.mark.host


@pytest.mark.full
@pytest.mark.slow
def test_the_command_can_be_tried_without_a_gpu(capsys):
    networks = ["ltx23-quick", "z-image-quick"]
    main(["--dry-run", "--networks", *networks, "--rounds", "1"])
    where, *blocks = capsys.readouterr().out.strip().split("\n\n")
    kernels, checks, costs = ([row.strip("| ").split(" | ") for row in block.splitlines()[2:]] for block in blocks)
    assert where.startswith("CPU, nothing here means anything")
    assert len(kernels) == len(BACKENDS) * len(TYPES) * len(WIDTHS)
    errors = {of_type: float(error) for name, of_type, _, taken, error in kernels if taken == "yes"}
    assert errors["fp32"] < 2e-6 and errors["bf16"] < 1e-3, "of the only kernel of a CPU"
    assert [row[1] for row in checks] == ["bit for bit"] * len(networks)
    assert all(float(row[2]) < 0.02 for row in checks)
    assert [len(row) for row in costs] == [6] * len(networks)


def test_without_a_gpu_it_says_how_to_try_it(capsys, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit):
        main([])
    assert "--dry-run tries the command on a CPU" in capsys.readouterr().err
