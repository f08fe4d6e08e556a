"""`make gpu-check` where there is no GPU: its parts on the CPU in a small size, and what it says is missing."""

import io
import json

import pytest
import torch
from rich.console import Console

from tools.measure import gpu_check
from tools.measure.gpu_check import Size, check

SMALL = Size(
    "cpu",
    steps=3,
    capture=32,
    cameras=2,
    frames=2,
    edit_pixels=64,
    edit_scale=8,
    edit_steps=2,
    gaussians=2000,
    shown=2,
)


@pytest.fixture
def console():
    return Console(file=io.StringIO(), width=200)


@pytest.mark.slow
def test_every_part_but_the_kernels_measures_something_on_any_device(tmp_path, console):
    out = tmp_path / "check.json"
    code = check(SMALL, out, ["training", "edit", "frames"], console)
    report = json.loads(out.read_text())
    assert code == 0, report
    assert report["training"]["milliseconds_a_step"] > 0 and report["training"]["psnr"] > 5
    assert report["edit"]["evaluations"] == 4 * 2 and report["edit"]["peak_mib"] > 100
    assert report["frames"]["frames_per_second"] > 0
    assert "frames_per_second" in console.file.getvalue()


def test_a_part_that_fails_is_reported_and_the_next_runs(tmp_path, console, monkeypatch):
    def fails(size):
        raise RuntimeError("no kernel image is available")

    monkeypatch.setattr(
        gpu_check, "PARTS", {"kernels": fails, "frames": lambda size: {"frames_per_second": 3}}
    )
    out = tmp_path / "check.json"
    assert check(SMALL, out, ["kernels", "frames"], console) == 1
    report = json.loads(out.read_text())
    assert "no kernel image" in report["kernels"]["error"] and report["frames"] == {"frames_per_second": 3}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_runs_nothing(tmp_path, console, monkeypatch):
    monkeypatch.setattr(gpu_check, "PARTS", {"kernels": lambda size: pytest.fail("was run")})
    out = tmp_path / "check.json"
    assert check(Size(), out, ["kernels"], console) == 2
    assert json.loads(out.read_text())["missing"][0].startswith("a CUDA device")
    assert "missing: a CUDA device" in console.file.getvalue()
