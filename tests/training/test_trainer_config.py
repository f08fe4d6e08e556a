"""A run's mistakes are found before `ns-train` prints its options or makes a folder."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from tests.tiny_capture import TinyCapture


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


def test_a_sound_run_prints_its_options(tiny_capture: TinyCapture, capfd: pytest.CaptureFixture[str]) -> None:
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.pipeline.datamanager.dataparser.data = tiny_capture.union
    config.print_to_terminal()
    assert "max_num_iterations" in capfd.readouterr().out
