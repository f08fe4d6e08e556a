"""The whole way in small: capture, avatar, edit with a (random) diffusion model, renders; through the demo's code."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import av
import pytest
from PIL import Image

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.demo.job import run_demo
from edit3dgs_ns.demo.settings import DemoSettings
from edit3dgs_ns.synthetic.settings import CaptureSettings
from tests.tiny_clip import save_tiny_clip
from tests.tiny_editor import save_tiny_editor

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("end_to_end") / "demo"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> DemoSettings:
    editor = save_tiny_editor(tmp_path_factory.mktemp("end_to_end_editor"))
    tiny = replace(DemoSettings.tiny(), editor=str(editor))
    return replace(tiny, capture=CaptureSettings(width=48, height=48, cameras=4, frames=3, samples=2))


@pytest.fixture(scope="module")
def finished(settings: DemoSettings, out: Path) -> Path:
    assert run_demo(settings, out) == 0
    return out


def test_report(finished: Path, settings: DemoSettings) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert shape_of(report) == {
        "base": {"novel_view": {"psnr", "ssim"}, "self_reenactment": {"psnr", "ssim"}},
        "edit": {"prompt", "rounds", "edited_images", "change_on_head", "change_on_background"},
        "seconds": {"capture", "base", "edit", "render"},
    }
    assert report["edit"]["prompt"] == settings.prompt
    assert report["edit"]["rounds"] == settings.edit.rounds
    assert report["edit"]["edited_images"] == settings.edit.rounds * settings.edit.views_per_edit
    for task in report["base"].values():
        assert 5 < task["psnr"] < 60 and 0 < task["ssim"] < 1
    assert report["edit"]["change_on_head"] > 0
    assert all(math.isfinite(value) and value > 0 for value in report["seconds"].values())


def test_grid_of_before_and_after(finished: Path) -> None:
    with Image.open(finished / "before_after.png") as grid:
        grid.load()
        assert grid.mode == "RGB"
        assert grid.width > 4 * 48 and grid.height > 2 * 48


def test_video(finished: Path, settings: DemoSettings) -> None:
    with av.open(str(finished / "reenactment.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == round(settings.render.video_seconds * settings.render.fps)
    assert frames[0].width == 2 * 48 and frames[0].height > 48


def test_evaluate_takes_the_runs(finished: Path, tmp_path: Path) -> None:
    """What `ns-train` has written, up to the true edit, which a synthetic capture knows."""
    arguments = ["evaluate", "--load-config", str(finished / "edit" / "edit3dgs" / "run" / "config.yml")]
    arguments += ["--source-caption", "a photo of a man", "--target-caption", "a photo of an old man"]
    arguments += [
        "--clip",
        str(save_tiny_clip(tmp_path / "clip")),
        "--max-frames",
        "2",
        "--expression-frames",
        "0",
    ]
    assert cli.run([*arguments, "--output", str(tmp_path / "out")]) == 0
    (run,) = json.loads((tmp_path / "out" / "report.json").read_text())["runs"]
    for setting in ("novel_view", "self_reenactment"):
        figures = run["settings"][setting]["figures"]
        assert 5 < figures["truth_psnr"]["value"] < 60 and -1 <= figures["clip_s"]["value"] <= 1
        # The unedited render is no nearer to the true edit than the capture's own images are.
        assert figures["truth_psnr"]["beside"] < 40
    assert run["figures"]["peak_memory_gb"]["value"] > 0.1
    assert run["prompt"] == "Make him look older"


def test_a_second_run_reuses_everything(finished: Path, settings: DemoSettings) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}

    before = stamps()
    assert run_demo(settings, finished) == 0
    assert stamps() == before


def shape_of(report: dict) -> dict:
    """Nested keys; the innermost level as a set."""
    if not any(isinstance(value, dict) for value in report.values()):
        return set(report)  # type: ignore[return-value]
    return {key: shape_of(value) for key, value in report.items()}
