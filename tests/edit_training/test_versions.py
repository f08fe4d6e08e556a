"""The history of a run: every version comes back bit for bit, nothing is lost, and a crash leaves one version or the other."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import pytest

from edit3dgs_ns.commands import main as cli
from edit3dgs_ns.edit_training import versions as run_history
from edit3dgs_ns.edit_training.history import History
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.errors import UserError


def _save(run: Path, step: int, content: bytes, only: bool = True) -> Path:
    """What Nerfstudio leaves: a file is replaced, never written in place; here it need not be a real checkpoint."""
    folder = run / "nerfstudio_models"
    folder.mkdir(parents=True, exist_ok=True)
    if only:
        for path in folder.glob("*.ckpt"):
            path.unlink()
    path = folder / f"step-{step:09d}.ckpt"
    path.write_bytes(content)
    return path


def _shown(run: Path) -> bytes:
    """What `ns-viewer` would load: the highest step."""
    return max((run / "nerfstudio_models").glob("step-*.ckpt")).read_bytes()


def _edit(history: RunHistory, tmp_path: Path, prompt: str, content: bytes) -> int:
    step = history.current.step + 7
    path = tmp_path / f"step-{step:09d}.ckpt"
    path.write_bytes(content)
    version = history.add(path, prompt, history.keep_current().number, {"rounds": 3})
    path.unlink()
    return version.number


@pytest.fixture
def run(tmp_path: Path) -> Path:
    _save(tmp_path / "run", 99, b"trained")
    return tmp_path / "run"


def test_every_version_comes_back_bit_for_bit(run, tmp_path):
    history = RunHistory(run)
    assert [v.prompt for v in history.versions] == [None] and not history.is_edited()
    assert not (run / "history").exists(), "looking changes nothing"
    contents = {
        0: b"trained",
        1: b"older" * 50,
        2: b"older and green",
    }
    assert _edit(history, tmp_path, "older", contents[1]) == 1
    assert _edit(history, tmp_path, "green", contents[2]) == 2
    assert _shown(run) == contents[2]
    assert [v.prompt for v in history.chain()] == [None, "older", "green"]
    for number in (0, 2, 1, 0, 1, 2):
        assert RunHistory(run).revert_to(number).number == number
        assert _shown(run) == contents[number]
        assert RunHistory(run).current.number == number
    assert [v.prompt for v in RunHistory(run).versions] == [None, "older", "green"]


def test_undo_goes_to_what_was_edited_and_another_edit_branches_off(run, tmp_path):
    history = RunHistory(run)
    _edit(history, tmp_path, "older", b"older")
    assert history.undo().number == 0 and _shown(run) == b"trained"
    assert _edit(history, tmp_path, "green", b"green") == 2
    assert [(v.number, v.parent) for v in history.versions] == [(0, None), (1, 0), (2, 0)]
    assert [v.prompt for v in history.chain()] == [None, "green"]
    history.undo()
    with pytest.raises(ValueError, match="no edit to undo"):
        history.undo()


@pytest.mark.parametrize("survives", range(4))
def test_a_crash_while_going_back_leaves_a_whole_version(run, tmp_path, monkeypatch, survives):
    """Whatever number of files was written before the plug was pulled: the run shows a whole version, and the history agrees."""
    history = RunHistory(run)
    _edit(history, tmp_path, "older", b"older")
    written = 0
    link, write = run_history._link, run_history.write_durably

    def count(do):
        def counted(*args):
            nonlocal written
            if written == survives:
                raise KeyboardInterrupt
            written += 1
            return do(*args)

        return counted

    monkeypatch.setattr(run_history, "_link", count(link))
    monkeypatch.setattr(run_history, "write_durably", count(write))
    with contextlib.suppress(KeyboardInterrupt):
        history.revert_to(0)
    assert written == min(survives, 3), "a pending note, the checkpoint, the history"
    monkeypatch.undo()
    assert _shown(run) in (b"older", b"trained")
    again = RunHistory(run)
    expected = 1 if survives == 0 else 0  # once it has said where it goes, it gets there
    assert again.current.number == expected
    assert _shown(run) == {0: b"trained", 1: b"older"}[expected]
    assert len(again.versions) == 2


def test_a_checkpoint_that_nobody_recorded_is_kept_before_anything_changes(run, tmp_path):
    history = RunHistory(run)
    _edit(history, tmp_path, "older", b"older")
    _save(run, 500, b"trained on")
    history = RunHistory(run)
    assert history.current.number == 2 and history.current.parent == 1
    history.revert_to(0)
    assert _shown(run) == b"trained"
    assert RunHistory(run).checkpoint(2).read_bytes() == b"trained on"


def test_going_back_keeps_checkpoints_of_other_steps(tmp_path):
    run = tmp_path / "run"
    for step in (10, 20, 30):
        _save(run, step, f"step {step}".encode(), only=False)
    history = RunHistory(run)
    history.keep_current()
    _edit(history, tmp_path, "older", b"older")
    history.revert_to(0)
    assert _shown(run) == b"step 30"
    left = {path.read_bytes() for path in run.rglob("*.ckpt")}
    assert {b"step 10", b"step 20", b"step 30", b"older"} == left


def test_a_new_run_goes_on_with_the_history_of_the_avatar_that_it_edits(run, tmp_path):
    first = RunHistory(run)
    _edit(first, tmp_path, "older", b"older")
    second = tmp_path / "second"
    begun = RunHistory.begin(second, max((run / "nerfstudio_models").glob("*.ckpt")))
    assert [v.prompt for v in begun.chain()] == [None, "older"] and begun.is_edited()
    # The run trains; what it saves meanwhile is nobody's version, and resuming begins nothing anew.
    _save(second, 3, b"half way")
    (second / "edit_history.json").write_text(json.dumps({"prompt": "green", "rounds": 2}))
    resumed = RunHistory.begin(second, run / "history" / "0001.ckpt")
    assert resumed.recorded.prompt == "older" and resumed.recorded.number == 1
    _save(second, 9, b"green")
    done = RunHistory(second).keep_current()
    assert (done.prompt, done.parent, done.step) == ("green", 1, 9)
    RunHistory(second).revert_to(0)
    assert _shown(second) == b"trained"
    assert _shown(run) == b"older", "the other run is not touched"


def test_a_version_can_be_edited_by_its_file(run, tmp_path):
    history = RunHistory(run)
    _edit(history, tmp_path, "older", b"older")
    begun = RunHistory.begin(tmp_path / "other", run / "history" / "0000.ckpt")
    assert [v.prompt for v in begun.chain()] == [None]


def test_a_damaged_version_is_refused_and_nothing_changes(run, tmp_path):
    history = RunHistory(run)
    _edit(history, tmp_path, "older", b"older")
    (run / "history" / "0000.ckpt").unlink()
    (run / "history" / "0000.ckpt").write_bytes(b"tampered")
    with pytest.raises(ValueError, match=r"0000\.ckpt is missing or was changed"):
        RunHistory(run).revert_to(0)
    assert _shown(run) == b"older" and RunHistory(run).current.number == 1


@pytest.mark.parametrize(
    "content", ["{", '{"current": 5, "pending": null, "versions": []}', "[1]", '{"versions": 3}']
)
def test_a_damaged_history_says_what_to_do(run, content):
    (run / "history").mkdir()
    (run / "history" / "history.json").write_text(content)
    with pytest.raises(ValueError, match=r"history\.json is damaged.*Move the folder"):
        RunHistory(run)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"number": True}, "number True"),
        ({"step": "3"}, "step '3'"),
        ({"prompt": 3}, "prompt 3"),
        ({"options": []}, r"options \[\]"),
        ({"parent": 1}, "version 1 was made of version 1, which is not before it"),
        ({"parent": 7}, "version 1 was made of version 7, which is not before it"),
        ({"number": 0}, "version 0 comes after version 0"),
    ],
)
def test_a_history_with_impossible_versions_is_refused(run, changes, message):
    """A circle of parents would be followed for ever."""
    entry = {"prompt": None, "parent": None, "step": 3, "sha256": "0", "made": "2026-01-01", "options": {}}
    versions = [{"number": 0, **entry}, {"number": 1, **entry, **changes}]
    (run / "history").mkdir()
    content = {"current": 0, "pending": None, "versions": versions}
    (run / "history" / "history.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"history\.json is damaged \(.*{message}"):
        RunHistory(run)


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"batches": 3}', '{"batches": [{"round": 0}]}', '{"batches": [{"round": 0, "views": 3}]}'],
)
def test_a_damaged_record_of_rounds_is_named_when_a_run_goes_on(tmp_path, content):
    old = tmp_path / "old" / "edit_history.json"
    old.parent.mkdir()
    old.write_text(content)
    history = History(tmp_path / "edit_history.json", "older", 1, 0, {})
    with pytest.raises(UserError, match=r"old.edit_history\.json is damaged.*Move it away"):
        history.read_batches(old)
    assert not history.batches


def test_the_command_lists_goes_back_and_undoes(run, tmp_path, capsys):
    _edit(RunHistory(run), tmp_path, "Make him [bold] older", b"older")
    (run / "config.yml").write_text("")
    assert cli.run(["history", str(run)]) == 0
    assert "Make him [bold] older" in capsys.readouterr().out
    assert cli.run(["history", str(run / "config.yml"), "--go-back", "0"]) == 0
    assert _shown(run) == b"trained"
    assert cli.run(["history", str(run), "--go-back", "1"]) == 0
    assert cli.run(["history", str(run), "--undo"]) == 0
    assert _shown(run) == b"trained"
    capsys.readouterr()
    assert cli.run(["history", str(run), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["current"] == 0 and [v["prompt"] for v in said["versions"]] == [None, "Make him [bold] older"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--go-back", "7"], "no version 7; it has 0"),
        (["--go-back", "0", "--undo"], "give one of them"),
        (["--undo"], "no edit to undo"),
    ],
)
def test_the_command_refuses(run, capsys, arguments, message):
    assert cli.run(["history", str(run), *arguments]) == cli.USER_ERROR_EXIT_CODE
    assert message in capsys.readouterr().err


def test_the_command_wants_a_run(tmp_path, capsys):
    assert cli.run(["history", str(tmp_path)]) == cli.USER_ERROR_EXIT_CODE
    assert "no checkpoint" in capsys.readouterr().err


def test_looking_reads_a_checkpoint_once_per_change(run, tmp_path, monkeypatch):
    history = RunHistory(run)
    for name in ("a", "b", "c"):
        _edit(history, tmp_path, name, name.encode())
    _save(
        run, history.current.step, b"c"
    )  # a copy, as in a run that was moved: the version's own file no longer
    monkeypatch.setattr(run_history, "_TICK_NS", -(10**9))  # everything has rested
    digests: list[None] = []
    sha256 = hashlib.sha256
    monkeypatch.setattr(run_history.hashlib, "sha256", lambda: (digests.append(None), sha256())[1])
    for _ in range(3):
        opened = RunHistory(run)
        assert [version.prompt for version in opened.chain()] == [None, "a", "b", "c"] and opened.is_edited()
    assert len(digests) == 1
    _save(run, history.current.step, b"d")
    assert RunHistory(run).current.number == 4, "a change of the same size is seen"
    assert len(digests) == 2


def test_a_file_written_a_moment_ago_is_read_again(run, tmp_path):
    """A second write within one tick of the clock leaves the times as they were."""
    history = RunHistory(run)
    _edit(history, tmp_path, "a", b"1")
    _save(run, history.current.step, b"1")
    assert RunHistory(run).current.number == 1
    (run / "nerfstudio_models").joinpath(f"step-{history.current.step:09d}.ckpt").write_bytes(b"2")
    assert RunHistory(run).current.number == 2
