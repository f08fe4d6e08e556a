"""A whole capture has no problems; whatever is broken in one is reported, all of it, under its name."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.capture.check_report import CaptureReport, Problem
from edit3dgs_ns.commands import main as cli
from tests.tiny_capture import SEQUENCES, UNION, TinyCapture, write_tiny_capture


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    return write_tiny_capture(tmp_path_factory.mktemp("whole"), size=24, samples=1)


@pytest.fixture
def capture(whole: TinyCapture, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(whole.root, tmp_path / "capture")
    return tmp_path / "capture"


@pytest.fixture(autouse=True)
def the_capture_s_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAME_MODEL_PATH", raising=False)


def change(capture: Path, split: str, edit: Callable[[dict[str, Any]], Any]) -> None:
    path = capture / UNION / f"transforms_{split}.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def said(problems: list[Problem]) -> list[str]:
    return [f"{p.where} {p.what}" for p in problems]


def check(capture: Path, **options: Any) -> CaptureReport:
    return check_capture(capture / UNION, **options)


@pytest.mark.parametrize("thorough", [False, True])
def test_a_whole_capture_has_no_problems(whole: TinyCapture, thorough: bool) -> None:
    seen: dict[str, int] = {}
    report = check(
        whole.root, thorough=thorough, progress=lambda what, done, total: seen.update({what: done})
    )
    assert said(report.problems) == said(report.hints) == []
    total = whole.cameras * whole.timesteps * len(SEQUENCES)
    assert sum(report.frames.values()) == total and report.timesteps == whole.timesteps * len(SEQUENCES)
    assert report.cameras == whole.cameras and report.sizes == [(24, 24)]
    assert report.decoded_bytes == total * 24 * 24 * 3
    files = {"Images": total, "Masks": total, "Head parameters": report.timesteps}
    assert seen == {**files, "Comparing head and images": 1}


def test_every_problem_is_listed_not_only_the_first(capture: Path) -> None:
    folder = capture / SEQUENCES[0]
    (folder / "images" / "00000_00.png").unlink()
    truncated, small, mask = (
        folder / p for p in ("images/00001_01.png", "images/00002_03.png", "fg_masks/00001_02.png")
    )
    truncated.write_bytes(truncated.read_bytes()[:-9])
    Image.new("RGB", (24, 20)).save(small)
    mask.write_bytes(b"")
    poses = capture / SEQUENCES[1] / "flame_param"
    table = dict(np.load(poses / "00000.npz"))
    np.savez(poses / "00000.npz", **{**table, "jaw_pose": np.full((1, 3), np.nan, np.float32)})
    np.savez(poses / "00001.npz", **{**table, "expr": table["expr"][:, :-1]})
    (poses / "00002.npz").unlink()
    change(capture, "val", lambda content: content["frames"][2].pop("transform_matrix"))
    report = check(capture)
    text = "\n".join(said(report.problems))
    for expected in (
        "images/00000_00.png is missing", "images/00001_01.png is truncated", "00002_03.png is 24 x 20 pixels",
        "fg_masks/00001_02.png is empty", "00000.npz 'jaw_pose' is not an array of finite numbers",
        "00001.npz does not go with", "00002.npz no such file", "transforms_val.json frame 2 has no key 'transform_matrix'",
    ):  # fmt: skip
        assert expected in text
    assert len(report.problems) == 8
    assert sum(p.missing for p in report.problems) == 2


def test_damage_in_the_middle_is_found_by_a_thorough_check(capture: Path) -> None:
    path = capture / SEQUENCES[1] / "images" / "00001_01.png"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
    path.write_bytes(data)
    assert said(check(capture).problems) == []
    (found,) = said(check(capture, thorough=True).problems)
    assert found.startswith(f"{path} cannot be decoded")


def _overlap(content: dict[str, Any], capture: Path) -> None:
    train = json.loads((capture / UNION / "transforms_train.json").read_text())["frames"]
    content["frames"] += train[:2]


@pytest.mark.parametrize(
    ("split", "edit", "expected", "count"),
    [
        ("val", _overlap, "which transforms_train.json lists too", 2),
        ("test", lambda c, _: c["frames"].append(c["frames"][0]), "2 times", 1),
        ("train", lambda c, _: c["frames"][5].update(timestep_index=0), "timestep_index 0 for", 1),
        ("test", lambda c, _: [f.pop("flame_param_path") for f in c["frames"]], "names no flame_param_path for timestep_index", 3),
        ("train", lambda c, _: c["frames"][0]["transform_matrix"].__setitem__(0, [2, 0, 0, 0]), "no rotation", 1),
        ("train", lambda c, _: c["frames"][1]["transform_matrix"][1].__setitem__(3, math.inf), "frame 1 has a transform_matrix", 1),
        ("train", lambda c, _: c["frames"][1].update(file_path="../../../etc/passwd"), "leaves the capture", 1),
        ("train", lambda c, _: c.update(frames=[]), "lists no frames", 1),
        ("test", lambda c, _: c.pop("frames"), "expected a list under 'frames'", 1),
    ],
)  # fmt: skip
def test_what_the_transforms_say(
    capture: Path, split: str, edit: Callable[[dict[str, Any], Path], Any], expected: str, count: int
) -> None:
    change(capture, split, lambda content: edit(content, capture))
    found = said(check(capture).problems)
    assert (
        sum(f"transforms_{split}.json" in line and expected in line for line in found) == count == len(found)
    )


def test_missing_and_broken_transforms(capture: Path) -> None:
    (capture / UNION / "transforms_test.json").unlink()
    (capture / UNION / "transforms_val.json").write_text('{"frames": [')
    found = said(check(capture).problems)
    assert len(found) == 2
    assert any("transforms_test.json is missing" in line for line in found)
    assert any("transforms_val.json is not valid JSON" in line for line in found)


def test_hints(capture: Path) -> None:
    def edit(content: dict[str, Any]) -> None:
        for frame in content["frames"]:
            frame["cy"] -= 3
        content["frames"][0].pop("fg_mask_path")

    change(capture, "train", edit)
    other = capture / SEQUENCES[1] / "flame_param" / "00000.npz"
    table = dict(np.load(other))
    np.savez(other, **{**table, "shape": table["shape"] + 1})
    report = check(capture)
    text = "\n".join(said(report.hints))
    assert said(report.problems) == [] and len(report.hints) == 3
    assert "(+0.0, -3.0)" in text and "--cy bottom" in report.hints[-2].advice + report.hints[-1].advice
    assert "names masks for 17 of 18 frames" in text and "another identity" in text


def test_parameters_of_another_head_model(capture: Path) -> None:
    for path in capture.glob("*/flame_param/*.npz"):
        table = dict(np.load(path))
        np.savez(path, **{**table, "static_offset": np.zeros((1, 5143, 3), np.float32)})
    (found,) = check(capture).problems
    assert "does not fit the head model" in found.what and "FLAME_MODEL_PATH" in found.advice


def test_command_reports_and_returns(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--data", str(capture)]) == 0
    assert "Ready" in capfd.readouterr().out
    paths = [capture / SEQUENCES[2] / "images" / f"0000{t}_01.png" for t in range(3)]
    for path in paths:
        os.remove(path)
    assert cli.run(["doctor", "--data", str(capture)]) == 1
    out = capfd.readouterr().out
    assert all(f"{path} is missing" in out for path in paths) and "Not ready: 3 problems" in out
    assert cli.run(["doctor", "--data", str(capture), "--json"]) == 1
    report = json.loads(capfd.readouterr().out)
    assert report["ready"] is False and report["capture"] == str(capture / UNION)
    assert [f["name"] for f in report["findings"]] == [str(path) for path in paths]
    assert all(
        f["status"] == "missing" and f["required"] and f["area"] == "Images" for f in report["findings"]
    )


def test_command_refuses_what_is_no_capture(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["doctor", "--data", str(tmp_path / "nowhere")]) == cli.USER_ERROR_EXIT_CODE
    assert "no such folder" in capfd.readouterr().err
    assert cli.run(["doctor", "--thorough"]) == cli.USER_ERROR_EXIT_CODE
    assert "--data" in capfd.readouterr().err
