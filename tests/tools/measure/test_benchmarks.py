"""`make bench` on a tiny scene: what it counts, what it writes, and that nothing of an earlier run is lost."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from rich.console import Console

from tests.splats.scenes import make_scene
from tools.measure.benchmarks import __main__ as bench
from tools.measure.benchmarks import common, rasterizer

QUIET = Console(quiet=True)


def counted_by_hand(info: dict[str, Any], width: int, height: int) -> int:
    """Contributing pairs, one pixel and one Gaussian at a time, from what the rasterizer says it projected."""
    visible = [n for n in torch.argsort(info["depths"][0], stable=True).tolist() if info["radii"][0, n] > 0]
    count = 0
    for y in range(height):
        for x in range(width):
            transmittance = 1.0
            for n in visible:
                u, v = info["means2d"][0, n].tolist()
                a, b, c = info["conics"][0, n].tolist()
                dx, dy = x + 0.5 - u, y + 0.5 - v
                sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                alpha = min(0.999, float(info["opacities"][0, n]) * math.exp(-sigma))
                if alpha >= 1 / 255:
                    transmittance *= 1 - alpha
                    if transmittance <= 1e-4:
                        break
                    count += 1
    return count


def test_pairs_are_counted_as_by_hand() -> None:
    from edit3dgs_ns.splats.cpu_rasterizer import bin_gaussians
    from tools.measure.benchmarks.pairs import count_pairs

    scene = make_scene(count=25, width=40, height=21, size=0.15)
    _, _, info = scene.render()
    names = ("means2d", "conics", "opacities", "radii", "depths")
    means2d, conics, opacities, radii, depths = (np.ascontiguousarray(info[name]) for name in names)
    colors = np.ascontiguousarray(scene.colors[None])
    bins = bin_gaussians(means2d, conics, opacities, colors, radii, depths, 40, 21)
    start = bins.tile_start
    evaluated, contributing = count_pairs(bins.records, start, start[1:], bins.pairs, 40, 21)
    assert contributing == counted_by_hand(info, 40, 21)
    assert evaluated % 16 == 0
    assert contributing < evaluated < 25 * 48 * 24  # less than every pixel of every tile


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The section `rasterizer` on 300 Gaussians, without the slow parts; says which of those were asked for."""
    asked: list[str] = []

    def in_new_process(*arguments: str, **_: str) -> float:
        asked.append(arguments[0])
        return 60.0 if arguments[0] == "reference" else 0.5

    real = rasterizer.measure
    monkeypatch.setattr(rasterizer, "measure", lambda *a, **k: real(*a, **k, gaussians=300, size=40))
    monkeypatch.setattr(rasterizer, "_in_new_process", in_new_process)
    monkeypatch.setattr(rasterizer, "version", lambda _: "1.2.3")
    monkeypatch.setattr(common, "available_gb", lambda: 100.0)
    return asked


def test_the_file_has_the_named_figures_and_keeps_other_sections(tiny: list[str], tmp_path: Path) -> None:
    path = tmp_path / "out" / "bench.json"
    path.parent.mkdir()
    streaming = {
        "extra_peak_gb": 0.1,
        "steps_per_second_ratio": 0.95,
        "seconds_to_first_step": 9,
        "images": 20000,
    }
    path.write_text(json.dumps({"streaming": streaming}))
    assert bench.main(["--only", "rasterizer", "--out", str(path)]) == 0
    record = json.loads(path.read_text())
    assert set(record) == {"rasterizer", "streaming", "machine"}
    assert record["streaming"] == streaming
    figures = record["rasterizer"]
    assert list(figures) == list(bench.SECTIONS["rasterizer"])
    assert figures["bitwise_equal_across_threads"] is True
    numbers = [value for key, value in figures.items() if key != "bitwise_equal_across_threads"]
    assert all(isinstance(value, float) and value > 0 for value in numbers)
    assert 0 < figures["fraction_of_limit_forward"] < 1 and 0 < figures["fraction_of_limit_backward"] < 1
    assert {"cpu", "cores", "threads", "torch"} <= set(record["machine"])
    assert [p.name for p in path.parent.iterdir()] == ["bench.json"]  # nothing half-written stays

    assert tiny.count("reference") == 2
    bench.main(["--only", "rasterizer", "--out", str(path)])
    assert tiny.count("reference") == 2  # the same machine, the same versions: taken from the file
    bench.main(["--only", "rasterizer", "--out", str(path), "--fresh"])
    assert tiny.count("reference") == 4


def test_another_section_leaves_what_is_known_of_the_machine_and_a_missing_one_alone_is_measured(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bench.json"
    bench.main(["--only", "rasterizer", "--out", str(path)])
    before = json.loads(path.read_text())
    measured: list[str] = []

    def measurement(name: str, *_: Any) -> Any:
        measured.append(name)
        return lambda console: {"slider_response_s": 0.25}

    monkeypatch.setattr(bench, "_measurement", measurement)
    bench.main(["--only", "rasterizer", "viewer", "--missing", "--out", str(path)])
    assert measured == ["viewer"]
    after = json.loads(path.read_text())
    assert after["viewer"] == {"slider_response_s": 0.25} and after["rasterizer"] == before["rasterizer"]
    assert after["machine"]["torch_ref"] == before["machine"]["torch_ref"]


def test_the_reference_is_not_started_without_the_memory_it_needs(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "available_gb", lambda: 2.0)
    with pytest.raises(MemoryError, match=r"2\.0 GB are free"):
        bench.main(["--only", "rasterizer", "--out", str(tmp_path / "bench.json")])
    assert "reference" not in tiny


def test_a_file_that_is_no_record_is_named_before_anything_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text("[1, 2")
    with pytest.raises(ValueError, match=r"bench\.json is not JSON"):
        bench.main(["--only", "rasterizer", "--out", str(path)])
    assert path.read_text() == "[1, 2"


def test_the_reenactment_section_films_what_it_measures() -> None:
    from tools.measure.benchmarks import reenactment

    figures = reenactment.measure(QUIET, threads=1, gaussians=300, frames=3)
    assert set(bench.SECTIONS["reenactment"]) <= set(figures)
    assert figures["fps_ratio"] == pytest.approx(figures["video_fps"] / figures["bare_fps"], rel=0.01)
    assert figures["video_megabytes"] > 0


def test_the_training_section_trains_what_the_rasterizer_is_compared_on() -> None:
    from tools.measure.benchmarks import training_step

    figures = training_step.measure(QUIET, threads=1, gaussians=300, rounds=2)
    assert set(bench.SECTIONS["training_step"]) <= set(figures)
    ratio = figures["milliseconds"] / figures["rasterizer_ms"]
    assert figures["ratio_to_rasterizer"] == pytest.approx(ratio, rel=0.05)
    step = training_step.Step(300)
    before = {name: value.detach().clone() for name, value in step.model.gauss_params.items()}
    light = step.model.appearance.light.detach().clone()
    step.whole()
    changed = {name for name, value in step.model.gauss_params.items() if (value != before[name]).any()}
    assert changed == set(before) and (step.model.appearance.light != light).any()


def test_threads_are_put_back() -> None:
    before = numba.get_num_threads(), torch.get_num_threads()
    with common.threads(1):
        assert (numba.get_num_threads(), torch.get_num_threads()) == (1, 1)
    assert (numba.get_num_threads(), torch.get_num_threads()) == before


@pytest.mark.parametrize(
    ("aim", "met", "missed"),
    [(bench.Aim(">=", 2), 2.0, 1.9), (bench.Aim("<=", 2), 2.0, 2.1), (bench.Aim("==", True), True, False)],
)
def test_an_aim_says_whether_it_is_met(aim: bench.Aim, met: Any, missed: Any) -> None:
    assert aim.met(met) and not aim.met(missed)
