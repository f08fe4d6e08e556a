"""tools/measure/results_nersemble.sh with programs that only write down what they were asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "tools" / "measure" / "results_nersemble.sh"
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0")" "$@" | paste -sd '\\t' >> "$LOG"
case "$(basename "$0") $1" in
    ns-train\\ *)
        method=$1
        while [ $# -gt 0 ]; do
            case $1 in
                --output-dir) out=$2 ;; --experiment-name) name=$2 ;; --max-num-iterations) steps=$2 ;;
            esac
            shift
        done
        [ "${BREAK:-}" != "$name" ] || exit 1
        mkdir -p "$out/$name/$method/run/nerfstudio_models"
        touch "$out/$name/$method/run/nerfstudio_models/step-00000${STEP:-4999}.ckpt" ;;
    edit3dgs\\ doctor) exit "${DOCTOR:-0}" ;;
esac
"""


class Machine:
    """A folder with fake programs, a capture and a log of calls."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("ns-train", "edit3dgs"):
            program = root / "bin" / name
            program.parent.mkdir(exist_ok=True)
            program.write_text(FAKE)
            program.chmod(0o755)
        self.capture = root / "UNION10_306"
        self.capture.mkdir()
        self.log = root / "log"

    def run(self, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "LOG": str(self.log),
            **environment,
        }
        words = [
            "bash",
            str(SCRIPT),
            "--data",
            str(self.capture),
            "--out",
            str(self.root / "out"),
            *map(str, arguments),
        ]
        return subprocess.run(words, env=env, capture_output=True, text=True, check=False)

    def take(self) -> list[list[str]]:
        calls = [line.split("\t") for line in self.log.read_text().splitlines()] if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return calls


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    return Machine(tmp_path)


def value(call: list[str], flag: str) -> str:
    return call[call.index(flag) + 1]


def test_an_avatar_then_every_edit_then_one_table(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "460_FREE").mkdir()
    done = machine.run(
        "--person",
        "woman",
        "--steps",
        5000,
        "--motion",
        tmp_path / "460_FREE",
        "--evaluate",
        "--max-frames 300 --identity none",
        "--",
        "--pipeline.rounds",
        "3",
    )
    assert done.returncode == 0, done.stderr
    doctor, avatar, *edits, table = machine.take()
    assert doctor[:2] == ["edit3dgs", "doctor"]
    assert avatar[:2] == ["ns-train", "rigged-splatfacto"] and value(avatar, "--max-num-iterations") == "5000"
    assert avatar[-3:] == ["nersemble-data", "--data", str(machine.capture)]
    assert len(edits) == 6 and all(edit[1] == "edit3dgs" for edit in edits)
    prompts = [value(edit, "--prompt") for edit in edits]
    assert (
        prompts[:2] == ["Make her look older", "Turn her into the Tolkien Elf"]
        and "Apply face paint" in prompts
    )
    assert all(value(edit, "--pipeline.avatar").endswith("avatar/rigged-splatfacto/run") for edit in edits)
    assert all(value(edit, "--pipeline.rounds") == "3" for edit in edits)
    assert table[:2] == ["edit3dgs", "evaluate"] and value(table, "--source-caption") == "a photo of a woman"
    runs = table[table.index("--runs") + 1 : table.index("--source-caption")]
    targets = table[table.index("--target-caption") + 1 : table.index("--clip")]
    assert len(runs) == len(targets) == 6 and runs[0].endswith("older/edit3dgs/run/config.yml")
    assert "a photo of a bearded man" in targets and not any("PERSON" in text for text in targets)
    assert value(table, "--motion") == str(tmp_path / "460_FREE")
    assert value(table, "--max-frames") == "300" and value(table, "--identity") == "none"


def test_what_is_done_is_not_done_again_and_what_broke_off_goes_on(machine: Machine) -> None:
    broken = machine.run("--steps", 5000, BREAK="elf")
    assert broken.returncode != 0
    assert [call[1] for call in machine.take()] == ["doctor", "rigged-splatfacto", "edit3dgs", "edit3dgs"]
    assert machine.run("--steps", 5000).returncode == 0
    calls = machine.take()
    assert [value(call, "--experiment-name") for call in calls[1:-1]] == [
        "elf",
        "bearded",
        "egyptian",
        "hundred",
        "facepaint",
    ]
    assert calls[-1][1] == "evaluate"


def test_a_training_that_was_killed_goes_on_from_its_checkpoint(machine: Machine, tmp_path: Path) -> None:
    models = tmp_path / "out" / "avatar" / "rigged-splatfacto" / "run" / "nerfstudio_models"
    models.mkdir(parents=True)
    for step in (999, 1999):
        (models / f"step-{step:09d}.ckpt").touch()
    assert machine.run("--steps", 5000).returncode == 0
    avatar = machine.take()[1]
    assert value(avatar, "--max-num-iterations") == "3000" and value(avatar, "--load-dir") == str(models)


def test_a_given_avatar_is_taken(machine: Machine, tmp_path: Path) -> None:
    assert machine.run("--avatar", tmp_path / "mine").returncode == 0
    calls = machine.take()
    assert calls[1][1] == "edit3dgs" and value(calls[1], "--pipeline.avatar") == str(tmp_path / "mine")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--person", "cat"), "--person cat"),
        (("--steps", "many"), "--steps many"),
        (("--motion", "/no/such/file"), "--motion /no/such/file"),
        (("--edits", "/no/such/file"), "--edits /no/such/file"),
        (("--colour", "red"), "--colour is no option"),
        (("--steps",), "--steps wants a value"),
    ],
)
def test_mistakes_end_before_anything_runs(
    machine: Machine, arguments: tuple[str, ...], message: str
) -> None:
    done = machine.run(*arguments)
    assert done.returncode == 2 and message in done.stderr
    assert not machine.take()


def test_a_broken_capture_or_list_stops(machine: Machine, tmp_path: Path) -> None:
    assert machine.run(DOCTOR="1").returncode == 1
    assert len(machine.take()) == 1
    (tmp_path / "edits.tsv").write_text("older\tMake HIM older\ta photo\n")
    done = machine.run("--edits", tmp_path / "edits.tsv")
    assert done.returncode == 2 and "fewer than four columns" in done.stderr
