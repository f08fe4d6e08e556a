"""Tables whose words stay whole at 80 columns, and progress as lines where there is no terminal."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns import console
from edit3dgs_ns.commands.doctor import print_findings
from edit3dgs_ns.commands.history import print_versions
from edit3dgs_ns.console import CONSOLE, duration, print_table, progress_bars, progress_line, working
from edit3dgs_ns.demo.job import _summary
from edit3dgs_ns.edit_training.versions import Version
from edit3dgs_ns.evaluation.report_data import Figure, Report, RunReport, SettingReport
from edit3dgs_ns.evaluation.report_table import print_report
from edit3dgs_ns.machine.finding import Finding

WIDTH = 80
LONG = "UNION10_074_EMO1EMO2EMO3EMO4EXP2EXP3EXP4EXP5EXP8EXP9_v16_DS4_whiteBg_staticOffset_maskBelowLine"
PROMPT = "Make him look like an elderly gentleman with an extraordinarily magnificent handlebar moustache"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CONSOLE, "width", WIDTH)


def assert_readable(printed: str, words: Sequence[str]) -> None:
    """Lines fit the terminal unless one word alone does not, and no word is broken."""
    for line in printed.splitlines():
        longest = max(map(len, line.split()), default=0)
        assert len(line) <= WIDTH or longest > WIDTH // 2, line
    shown = set(re.split(r"[\s│┃]+", printed))
    missing = [word for text in words for word in text.split() if word not in shown]
    assert not missing, printed


def test_versions(capsys: pytest.CaptureFixture[str]) -> None:
    class History:
        versions = (
            Version(0, None, None, 29999, "ab", "2026-11-29T06:00:00+00:00"),
            Version(1, PROMPT, 0, 31199, "cd", "2026-11-29T07:00:00+00:00"),
            Version(2, LONG, 1, 32399, "ef", "2026-11-29T08:00:00+00:00"),
        )
        current = versions[1]

    print_versions(History())  # type: ignore[arg-type]
    assert_readable(
        capsys.readouterr().out, ["the avatar as trained", PROMPT, LONG, "1 (now)", "29999", "08:00:00"]
    )


def test_findings_of_the_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    path = f"/home/somebody/.cache/huggingface/hub/models--{LONG}"
    advice = "For masks from words (--pipeline.masks grounded-sam): it downloads itself at first use, or now with: hf download X"
    findings = [
        Finding("Packages", "torch", "ok", "2.14.1", required=True),
        Finding("Weights", "IDEA-Research/grounding-dino-base", "warn", f"incomplete in {path}", advice),
        Finding("Weights", "demo editor", "missing", f"{path} lacks unet", advice, required=True),
    ]
    print_findings(findings, ready=False)
    printed = capsys.readouterr().out
    assert_readable(printed, ["torch", "2.14.1", path, advice, "incomplete in", "MISSING", "demo editor"])


@pytest.mark.parametrize("names", [["base"], ["a", "b", "c"], [f"{LONG}/older", f"{LONG}/bronze", LONG]])
def test_evaluations(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(clip="demo", identity="none", runs=[], notes=[f"CLIP: {PROMPT}"])
    for number, name in enumerate(names):
        run = RunReport(name, f"outputs/{name}", PROMPT, "a man", "an old man", "demo")
        figures = {"clip_s": Figure(0.1 + number / 10), "clip_c": Figure(0.9)}
        run.settings["novel_view"] = SettingReport(frames=71, figures=figures)
        report.runs.append(run)
    print_report(report)
    printed = capsys.readouterr().out
    assert_readable(printed, [*names, PROMPT, "CLIP-S", *(f"0.{1 + n}00" for n in range(len(names)))])


def test_summary_of_the_demo(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {task: {"psnr": 32.812, "ssim": 0.98} for task in ("novel_view", "self_reenactment")}
    edit = {"edited_images": 80, "rounds": 20, "change_on_head": 0.16, "change_on_background": 0.0021}
    seconds = {"capture": 95.0, "base": 301.0, "edit": 220.0, "render": 61.0}
    rows = _summary({"base": figures, "edit": edit, "seconds": seconds})
    print_table(("figure", "value"), rows, title=f"“{PROMPT}”")
    assert_readable(capsys.readouterr().out, [cell for row in rows for cell in row])


@given(st.lists(st.lists(st.text("abc[] ", max_size=60), min_size=3, max_size=3), min_size=1, max_size=4))
def test_any_table(rows: list[list[str]]) -> None:
    with CONSOLE.capture() as capture:
        print_table(("one", "two", "three"), rows, right=[2])
    assert_readable(capture.get(), [cell for row in rows for cell in row])


# -- progress ---------------------------------------------------------------------------------------------------------


def test_lines_at_the_beginning_and_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bars(seconds=1000) as progress:
        with working(progress, "Opening [a run]"):
            assert capsys.readouterr().err == "Opening [a run] ...\n"
        for _ in progress.track(range(5), description="Rendering"):
            pass
    opened, begun, *_, done = capsys.readouterr().err.splitlines()
    assert opened.startswith("Opening [a run], done in ")
    assert begun == "Rendering, 0 of 5 ..." and done.startswith("Rendering, 5 of 5, done in ")


def test_a_line_every_few_seconds_while_nothing_moves(capsys: pytest.CaptureFixture[str]) -> None:
    seen = ""
    with progress_bars(seconds=0.001) as progress, working(progress, "Opening"):
        for _ in range(10_000):
            seen += capsys.readouterr().err
            if seen.count("Opening") > 3:
                break
            time.sleep(0.001)
    assert seen.count("Opening") > 3
    assert set(seen.splitlines()) == {"Opening ..."}


def test_work_that_fails_is_not_said_to_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OSError), progress_bars() as progress, working(progress, "Opening"):
        raise OSError
    assert capsys.readouterr().err == "Opening ...\n"


def test_a_line_says_how_long_it_will_take() -> None:
    assert progress_line("Rendering", 42, 710, 5.0) == "Rendering, 42 of 710, 5 s, about 1 min 20 s left"
    assert progress_line("Rendering", 710, 710, 84.0) == "Rendering, 710 of 710, done in 1 min 24 s"
    assert [duration(s) for s in (0.2, 59.4, 60, 3600, 5000)] == [
        "0 s",
        "59 s",
        "1 min 00 s",
        "1 h 00 min",
        "1 h 23 min",
    ]


def test_a_terminal_has_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console.ERROR_CONSOLE, "is_interactive", True)
    with progress_bars() as progress, working(progress, "Opening"):
        assert progress.live.is_started


def test_commands_are_printed_as_a_shell_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shlex

    words = ("ns-train", "--prompt", "Make him look like Vincent's “Père”", "--data", tmp_path / "a b" / LONG)
    console.say_command(*words)
    assert shlex.split(capsys.readouterr().out) == list(map(str, words))
