"""Nerfstudio finds the methods and the data parser, and finding them costs next to nothing."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {
    "accelerate", "av", "cv2", "diffusers", "embreex", "groundingdino", "gsplat", "matplotlib", "numba", "sam2", "scipy", "skimage",
    "sklearn", "torchmetrics", "torchvision", "transformers", "trimesh",
}  # fmt: skip

_NEW_MODULES = """
import importlib.metadata, json, sys, warnings
warnings.filterwarnings("ignore")
real = importlib.metadata.entry_points
importlib.metadata.entry_points = lambda **query: real(group="no such group")
import nerfstudio.configs.method_configs  # Nerfstudio alone, without any plugin
before = set(sys.modules)
import edit3dgs_ns.method_configs.rigged_splatfacto, edit3dgs_ns.method_configs.rigged_splatfacto_fast
import edit3dgs_ns.method_configs.edit3dgs, edit3dgs_ns.dataparsers.nersemble
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def test_config_modules_import_nothing_heavy() -> None:
    """Whatever Nerfstudio itself has loaded by then does not count."""
    done = _run(sys.executable, "-c", _NEW_MODULES)
    assert done.returncode == 0, done.stderr[-2000:]
    new = json.loads(done.stdout.splitlines()[-1])
    assert any(name.startswith("edit3dgs_ns.") for name in new)
    assert HEAVY & {name.split(".")[0] for name in new} == set()
    # ... and of this project only what a configuration is made of: plain Python and NumPy.
    parts = {name for name in new if name.startswith(("edit3dgs_ns.editing.", "edit3dgs_ns.capture."))}
    assert parts <= {
        "edit3dgs_ns.capture.cameras",
        "edit3dgs_ns.capture.compositing",
        "edit3dgs_ns.capture.images",
        "edit3dgs_ns.capture.transforms",
        "edit3dgs_ns.editing.editor",
        "edit3dgs_ns.editing.masks",
        "edit3dgs_ns.editing.masks.grounded_sam_options",
        "edit3dgs_ns.editing.noise_levels",
    }


def test_ns_train_lists_both_methods() -> None:
    done = _run(str(Path(sys.executable).with_name("ns-train")), "-h")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "rigged-splatfacto-fast" in done.stdout and "edit3dgs" in done.stdout


def test_registered_configs_fit_this_machine() -> None:
    import torch
    from nerfstudio.configs.dataparser_configs import all_dataparsers
    from nerfstudio.configs.method_configs import all_methods

    assert "nersemble-data" in all_dataparsers
    for name in ("rigged-splatfacto", "rigged-splatfacto-fast", "edit3dgs"):
        config = all_methods[name]
        assert config.method_name == name
        assert config.machine.device_type == ("cuda" if torch.cuda.is_available() else "cpu")
        assert "tensorboard" in config.vis  # ends by itself, and evaluates while it trains
        assert config.viewer.websocket_host == "127.0.0.1" and config.viewer.quit_on_train_completion


def test_viewers_stay_on_this_machine_unless_asked(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    """`ns-viewer` replaces the run's viewer settings by its own defaults, which listen on every interface."""
    from nerfstudio.configs.base_config import ViewerConfig

    from edit3dgs_ns.training.trainer_config import AvatarTrainerConfig

    config = AvatarTrainerConfig()
    config.viewer = ViewerConfig()
    assert config.viewer.websocket_host == "127.0.0.1"
    config.viewer = ViewerConfig(websocket_host="192.168.0.5")
    assert config.viewer.websocket_host == "192.168.0.5"
    monkeypatch.setattr(sys, "argv", ["ns-viewer", "--viewer.websocket-host", "0.0.0.0"])
    config.viewer = ViewerConfig(websocket_host="0.0.0.0")
    assert config.viewer.websocket_host == "0.0.0.0"


@pytest.mark.parametrize("method", ["rigged-splatfacto", "rigged-splatfacto-fast", "edit3dgs"])
def test_runs_are_named_after_their_capture(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folders that the documentation prints: OUTPUTS/CAPTURE/METHOD/DATE, however `--data` is given."""
    from nerfstudio.configs.method_configs import all_methods

    def folder(**settings: object) -> Path:
        config = copy.deepcopy(all_methods[method])
        config.timestamp = "DATE"
        for name, value in settings.items():
            manager = config.pipeline.datamanager
            setattr(manager.dataparser if name == "dataparser_data" else manager, name.split("_")[-1], value)
        return config.get_base_dir()

    name = "UNION10_074_v16_DS2-0.5x"
    (tmp_path / name).mkdir()
    (tmp_path / name / "capture.json").touch()
    expected = Path("outputs", name, method, "DATE")
    assert folder(dataparser_data=tmp_path / name) == expected
    assert folder(data=tmp_path / name) == expected
    assert folder(data=tmp_path / name / "capture.json") == expected
    monkeypatch.chdir(tmp_path / name)
    assert folder(dataparser_data=Path("../" + name + "/")) == expected
    assert folder(dataparser_data=Path()) == expected
