"""The report's files and tables say what was measured, and nothing that was not."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from PIL import Image
from rich.console import Console

from edit3dgs_ns.evaluation.published import PUBLISHED, setup_difference
from edit3dgs_ns.evaluation.report_data import (
    METRICS,
    SETTINGS,
    Figure,
    Report,
    RunReport,
    SettingReport,
    formatted,
    mean,
)
from edit3dgs_ns.evaluation.report_files import write_report
from edit3dgs_ns.evaluation.report_plots import draw_plots
from edit3dgs_ns.evaluation.report_table import markdown_table, rich_table

NAN = float("nan")


def run(name: str, clip_s: float) -> RunReport:
    setting = SettingReport(
        frames=3,
        figures={"clip_s": Figure(clip_s), "flicker": Figure(0.02, 0.01), "lips_mm": Figure(NAN)},
        series={
            "clip_s": [clip_s, NAN, 0.1],
            "flicker": [NAN, 0.02, 0.02],
            "flicker_before": [NAN, 0.01, 0.01],
        },
    )
    return RunReport(
        name=name,
        run="outputs/x/config.yml",
        prompt="Make him [b]older[/b]",
        source_caption="a man",
        target_caption="an old man",
        editor="demo",
        figures={"gaussians": Figure(12345.0, 12000.0)},
        settings={"novel_view": setting},
        base_quality={"novel_view": {"psnr": 31.5, "ssim": 0.97}},
    )


@pytest.fixture
def report() -> Report:
    return Report(
        "tiny/clip", "tiny/clip", [run("first|run", 0.25), run("[second]", 0.35)], notes=["A [random] CLIP."]
    )


def printed(report: Report) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(rich_table(report))
    return capture.get()


def test_json_holds_every_figure_and_no_nan(report: Report) -> None:
    content = json.loads(report.to_json())
    setting = content["runs"][1]["settings"]["novel_view"]
    assert setting["figures"]["clip_s"] == {"value": 0.35, "beside": None, "beside_of": ""}
    assert setting["figures"]["lips_mm"]["value"] is None
    assert setting["series"]["clip_s"] == [0.35, None, 0.1]
    assert content["runs"][0]["base_quality"]["novel_view"]["psnr"] == 31.5


def test_table_shows_runs_beside_each_other_their_mean_and_the_published_figures(report: Report) -> None:
    text = printed(report)
    assert (
        "[second]" in text and "first|run" in text and "A [random] CLIP." in text
    )  # nothing is read as markup
    (row,) = (line for line in text.splitlines() if "CLIP-S (clip) ↑" in line)
    assert [word for word in row.split() if word[0].isdigit()] == ["0.250", "0.350", "0.300"]
    assert "0.0200 (unedited 0.0100)" in text and "12,345 (unedited 12,000)" in text
    assert METRICS["lips_mm"].title not in text  # it could not be measured
    assert SETTINGS["cross_reenactment"] not in text
    clip_s, clip_c = PUBLISHED["Edit3DGS, Table 1"]["novel_view"]
    assert f"CLIP-S {clip_s:.3f}, CLIP-C {clip_c:.3f}" in text
    assert (
        f"{PUBLISHED['Edit3DGS, Table 1']['self_reenactment'][0]:.3f}" not in text
    )  # was not measured here either


def test_a_single_run_has_no_mean(report: Report) -> None:
    report.runs = report.runs[:1]
    assert "mean" not in printed(report).splitlines()[1]


def test_markdown_names_the_pictures_and_explains_every_figure(report: Report, tmp_path: Path) -> None:
    plots = draw_plots(report, tmp_path)
    assert set(plots) == {"novel_view"}
    with Image.open(plots["novel_view"]) as picture:
        picture.load()
        assert picture.width > 500 and picture.height > 200
    as_json, as_text = write_report(report, tmp_path, tmp_path / "before_after.png", plots)
    text = as_text.read_text()
    for needed in ("(before_after.png)", "(over_time_novel_view.png)", "Make him", "A [random] CLIP."):
        assert needed in text
    for key in ("clip_s", "flicker", "gaussians", "psnr"):
        assert f"**{METRICS[key].title}**" in text and METRICS[key].definition in text
    assert json.loads(as_json.read_text()) == json.loads(report.to_json())
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "over_time_novel_view.png",
        "report.json",
        "report.md",
    ]
    rows = [line for line in markdown_table(report).splitlines() if line.startswith("|")]
    assert len({row.replace("\\|", "").count("|") for row in rows}) == 1  # as many cells everywhere


def test_means_and_cells() -> None:
    assert mean([1.0, NAN, 3.0]) == 2.0
    assert mean([NAN]) is None and mean([]) is None
    assert formatted(METRICS["clip_s"], None) == formatted(METRICS["clip_s"], Figure(NAN)) == "–"
    assert formatted(METRICS["flicker"], Figure(0.1, math.inf)) == "0.1000"


def test_what_differs_from_the_published_set_up_is_named() -> None:
    assert "another CLIP (demo)" in setup_difference("demo", True) and "synthetic" in setup_difference(
        "demo", True
    )
    same = setup_difference("openai/clip-vit-large-patch14", False)
    assert "another CLIP" not in same and "synthetic" not in same and "captions" in same
