"""Help and mistakes are answered before anything heavy is imported: each command line in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edit3dgs_ns.commands.main import COMMANDS

HEAVY = ("torch", "nerfstudio", "diffusers", "transformers", "numba", "gsplat", "av")
RUNNER = f"""
import json, sys
from edit3dgs_ns.commands.main import run
try:
    code = run(sys.argv[1:])
except SystemExit as stop:
    code = stop.code
print("\\n" + json.dumps([code, [name for name in {HEAVY!r} if name in sys.modules]]))
"""


def run(*words: object) -> tuple[int, list[str], str]:
    """Returns the exit code, the heavy modules that were loaded, and everything that was printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *map(str, words)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    printed, _, last = done.stdout.rstrip().rpartition("\n")
    code, heavy = json.loads(last)
    return code, heavy, printed + done.stderr


@pytest.mark.parametrize("words", [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)])
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    code, heavy, _ = run(*words)
    assert code == 0 and not heavy


def test_the_runner_notices_what_is_loaded() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import torch" + RUNNER, "--version"], capture_output=True, text=True
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [0, ["torch"]]


@pytest.fixture(scope="module")
def avatar_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that looks like an avatar's run from outside; its files can be named, not loaded."""
    run = tmp_path_factory.mktemp("run")
    (run / "config.yml").write_text(
        "!!python/object:edit3dgs_ns.training.trainer_config.AvatarTrainerConfig {}\n"
    )
    (run / "nerfstudio_models").mkdir()
    (run / "nerfstudio_models" / "step-000000001.ckpt").write_bytes(b"")
    (run / "renders").mkdir()
    (run / "renders" / "orbit.mp4").write_bytes(b"mine")
    (run / "exports").mkdir()
    (run / "exports" / "splat.ply").write_bytes(b"mine")
    return run


CAPTIONS = ("--source-caption", "a man", "--target-caption", "an old man")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("capture FILE", "FILE is a file"),
        ("capture OUT --cameras 0", "cameras: found 0, expected a whole number from 1 to 16"),
        ("doctor --data NOWHERE", "--data NOWHERE: no such folder"),
        ("doctor --data EMPTY", "neither it nor a folder in it holds transforms_train.json"),
        ("demo FILE", "FILE is a file"),
        ("import NOWHERE", "AVATAR NOWHERE: no such file or folder"),
        ("import EMPTY --data NOWHERE", "EMPTY/point_cloud.ply: no such file"),
        (
            "import EMPTY --resolution 1000000 16",
            "--resolution 1000000 16: expected 16 to 8192 pixels a side",
        ),
        ("export --load-config NOWHERE", "--load-config NOWHERE: no such file"),
        ("export --load-config RUN --format html --motion NOWHERE", "--motion NOWHERE: no such file"),
        ("export --load-config RUN --format ply", "RUN/exports/splat.ply is there already"),
        ("evaluate --load-config NOWHERE", "--load-config NOWHERE: no such file"),
        ("evaluate --load-config RUN CAPTIONS --base NOWHERE --clip demo", "--base NOWHERE: no such file"),
        ("evaluate --load-config RUN CAPTIONS --clip NOWHERE", "--clip NOWHERE: there is no such folder"),
        ("evaluate --load-config RUN CAPTIONS --clip demo", "so it has not edited anything"),
        ("reenact --load-config RUN --motion NOWHERE", "--motion NOWHERE: no such file"),
        (
            "reenact --load-config RUN --motion FILE",
            "--motion FILE: a file without an ending is no known kind",
        ),
        ("reenact --load-config RUN --motion EMPTY", "--motion EMPTY: no motion in this folder"),
        ("reenact --load-config RUN --motion TAKE --cameras NOWHERE", "--cameras NOWHERE: no such file"),
        ("reenact --load-config RUN --motion TAKE --beside NOWHERE", "--beside NOWHERE: no such file"),
        ("reenact --load-config RUN --motion TAKE --fps 1e9", "--fps 1e+09: expected 0.1 to 240 frames"),
        ("orbit --load-config RUN --seconds 1e9", "2.5e+10 frames; a video has at most 100,000"),
        (
            "orbit --load-config RUN --scale 1e6",
            "--scale 1e+06: expected 0.1 to 16 times the capture's pixels",
        ),
        (
            "orbit --load-config RUN --scale 0.001",
            "--scale 0.001: expected 0.1 to 16 times the capture's pixels",
        ),
        (
            "interpolate --load-config RUN --steps 1000000000",
            "--steps: 1e+09 frames; a video has at most 100,000",
        ),
        ("orbit --load-config FILE", "--load-config FILE is no run of an avatar"),
        ("orbit --load-config RUN", "RUN/renders/orbit.mp4 is there already"),
        ("orbit --load-config RUN --overwrite --background NOWHERE", "--background NOWHERE: no such file"),
        ("interpolate --load-config EMPTY", "--load-config EMPTY: there is no config.yml"),
        ("derive --load-config NOWHERE --time 0", "--load-config NOWHERE: no such file"),
        ("history NOWHERE", "RUN NOWHERE: no such file or folder"),
        ("history --load-config NOWHERE", "RUN NOWHERE: no such file or folder"),
        ("history", "names the run; neither is given"),
        ("history RUN --load-config RUN", "names the run; both are given"),
        ("demo FOREIGN", "FOREIGN is not empty and holds no demo of ours"),
        ("orbt", "edit3dgs has no command 'orbt'. Did you mean `edit3dgs orbit`?"),
    ],
)
def test_mistakes_are_found_before_anything_heavy_is_loaded(
    words: str, message: str, avatar_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("nothing of interest")
    names = {"EMPTY": tmp_path / "empty", "FILE": tmp_path / "file", "NOWHERE": tmp_path / "nowhere"}
    names |= {"TAKE": tmp_path / "take.json", "FOREIGN": tmp_path / "foreign"}
    names["TAKE"].write_text("[]")
    names["FOREIGN"].mkdir()
    (names["FOREIGN"] / "thesis.txt").touch()
    names |= {"RUN": avatar_run, "OUT": tmp_path / "out"}
    arguments: list[object] = []
    for word in words.split():
        arguments += CAPTIONS if word == "CAPTIONS" else [names.get(word, word)]
    code, heavy, printed = run(*arguments)
    # "RUN NOWHERE" in a message: RUN is the name of the argument there.
    expected = message
    for name in ("EMPTY", "FILE", "NOWHERE", "FOREIGN"):
        expected = expected.replace(name, str(names[name]))
    expected = expected.replace("RUN/", f"{avatar_run}/")
    assert code == 2 and expected in printed
    assert not heavy
