"""Steps are done once, go on where they broke off, start anew when changed, and delete only what is theirs."""

from __future__ import annotations

from pathlib import Path

import pytest

from edit3dgs_ns.demo.job_steps import Step, StepRunner


class Work:
    """A step that counts how it was called and writes its output."""

    def __init__(self, folder: Path, fails: bool = False):
        self.out = folder / "result"
        self.calls: list[bool] = []
        self.fails = fails

    def step(self, **settings: object) -> Step:
        return Step("work", "Work", settings, (self.out,), self._act)

    def _act(self, resume: bool) -> None:
        self.calls.append(resume)
        self.out.mkdir(exist_ok=True)
        (self.out / "part").touch()
        if self.fails:
            raise RuntimeError("broken off")


def test_a_finished_step_is_reused(tmp_path: Path) -> None:
    work = Work(tmp_path)
    first = StepRunner(tmp_path).run(work.step(steps=3, flags=("a", "b")))
    assert work.calls == [False]
    assert StepRunner(tmp_path).run(work.step(steps=3, flags=("a", "b"))) == pytest.approx(first, abs=0.06)
    assert work.calls == [False]


def test_other_settings_start_from_nothing(tmp_path: Path) -> None:
    work = Work(tmp_path)
    StepRunner(tmp_path).run(work.step(steps=3))
    (work.out / "old").touch()
    StepRunner(tmp_path).run(work.step(steps=4))
    assert work.calls == [False, False]
    assert not (work.out / "old").exists()


def test_a_missing_output_is_made_again(tmp_path: Path) -> None:
    work = Work(tmp_path)
    StepRunner(tmp_path).run(work.step(steps=3))
    (work.out / "part").unlink()
    work.out.rmdir()
    StepRunner(tmp_path).run(work.step(steps=3))
    assert len(work.calls) == 2 and work.out.exists()


def test_a_broken_off_step_goes_on(tmp_path: Path) -> None:
    work = Work(tmp_path, fails=True)
    with pytest.raises(RuntimeError, match="broken off"):
        StepRunner(tmp_path).run(work.step(steps=3))
    (work.out / "kept").touch()
    work.fails = False
    StepRunner(tmp_path).run(work.step(steps=3))
    assert work.calls == [False, True]
    assert (work.out / "kept").exists()


def test_a_broken_off_step_with_other_settings_starts_from_nothing(tmp_path: Path) -> None:
    work = Work(tmp_path, fails=True)
    with pytest.raises(RuntimeError):
        StepRunner(tmp_path).run(work.step(steps=3))
    work.fails = False
    StepRunner(tmp_path).run(work.step(steps=4))
    assert work.calls == [False, False]


def test_what_others_made_is_left_alone(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.out.mkdir()
    (work.out / "precious").touch()
    with pytest.raises(FileExistsError, match="not made by this command"):
        StepRunner(tmp_path).run(work.step(steps=3))
    assert (work.out / "precious").exists() and work.calls == []
