"""A run's mistakes are found before `ns-train` prints its options or makes a folder."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from tests.tiny_capture import TinyCapture

HOLD = """
import sys, time
from pathlib import Path
from edit3dgs_ns.folder_lock import hold_until_exit
hold_until_exit(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (rigged_splatfacto_fast, {"data": "nowhere"}, "nowhere: no such folder"),
        (rigged_splatfacto_fast, {"load_dir": "nowhere"}, "--load-dir nowhere: no such file or folder"),
        (edit3dgs, {}, "edit3dgs needs an instruction"),
        (edit3dgs, {"prompt": "Older", "avatar": "nowhere"}, "--pipeline.avatar nowhere: no such file"),
    ],
)
def test_a_mistake_ends_ns_train_with_one_message(
    method: object,
    options: dict[str, str],
    message: str,
    tiny_capture: TinyCapture,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    config = copy.deepcopy(method.config)  # type: ignore[attr-defined]
    config.pipeline.datamanager.dataparser.data = Path(options.get("data", tiny_capture.union))
    config.load_dir = Path(options["load_dir"]) if "load_dir" in options else None
    if method is edit3dgs:
        config.pipeline.model.prompt = options.get("prompt")
        config.pipeline.avatar = Path(options["avatar"]) if "avatar" in options else None
        config.pipeline.editor.model = "demo"
    with pytest.raises(SystemExit) as stop:
        config.print_to_terminal()
    shown = capfd.readouterr()
    assert stop.value.code == 2 and message in shown.err and not shown.out
    assert not any(tmp_path.iterdir())


def _sound(tiny_capture: TinyCapture, output: Path) -> Any:
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.pipeline.datamanager.dataparser.data = tiny_capture.union
    config.output_dir, config.timestamp = output, "run"
    return config


def test_a_sound_run_prints_its_options(
    tiny_capture: TinyCapture, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    _sound(tiny_capture, tmp_path).print_to_terminal()
    assert "max_num_iterations" in capfd.readouterr().out


def test_a_place_that_cannot_be_written_or_is_in_use_is_named(
    tiny_capture: TinyCapture, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    config = _sound(tiny_capture, tmp_path / "file")
    with pytest.raises(SystemExit) as stop:
        config.print_to_terminal()
    assert stop.value.code == 2 and f"{tmp_path / 'file'}" in capfd.readouterr().err
    config = _sound(tiny_capture, tmp_path)
    other = [sys.executable, "-c", HOLD, str(config.get_base_dir())]
    with subprocess.Popen(other, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        with pytest.raises(SystemExit) as stop:
            config.print_to_terminal()
        process.kill()
    shown = capfd.readouterr()
    assert (
        stop.value.code == 2 and f"is being written by process {process.pid}" in shown.err and not shown.out
    )
