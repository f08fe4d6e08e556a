"""Runs that somebody else made, or that were moved: opened, or refused with a message; nothing in them is ever run."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import edit3dgs_ns.method_configs  # noqa: F401  (what Nerfstudio imports)
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.config_file import read_config
from edit3dgs_ns.runs.trained_run import TrainedRun

PATH_TAG = re.compile(r"!!python/object/apply:pathlib(\._local)?\.\w+")


@pytest.fixture
def moved(small_avatar: Path, tmp_path: Path) -> Path:
    """config.yml of a copy of the run in another place, under another name."""
    return Path(shutil.copytree(small_avatar, tmp_path / "from a friend")) / "config.yml"


def test_a_run_opens_wherever_it_lies_and_from_any_folder(
    small_avatar: Path, moved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TrainedRun(small_avatar / "config.yml")
    shutil.copytree(small_avatar, hidden := moved.parent.with_name("elsewhere"))
    monkeypatch.chdir(hidden)
    opened = TrainedRun(Path("..") / "from a friend" / "config.yml")
    assert opened.step == original.step
    mine, other = original.pipeline.state_dict(), opened.pipeline.state_dict()
    assert all(torch.equal(mine[name], other[name]) for name in mine)


def test_data_paths_are_found_above_the_run(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = read_config(moved)
    data = Path(config.pipeline.datamanager.data or config.pipeline.datamanager.dataparser.data)
    folder = moved.parents[1]
    (folder / "captures").symlink_to(data.parent, target_is_directory=True)
    config.pipeline.datamanager.data = Path("captures", data.name)
    moved.write_text(yaml.dump(config))
    monkeypatch.chdir("/")
    assert len(TrainedRun(moved).split("train")) > 0


def test_a_capture_that_is_gone_is_named_with_the_place_to_correct(moved: Path) -> None:
    config = read_config(moved)
    config.pipeline.datamanager.data = Path("/nowhere/capture")
    moved.write_text(yaml.dump(config))
    with pytest.raises(UserError, match=r"(?s)/nowhere/capture is not there.*under `data`") as error:
        TrainedRun(moved)
    assert "--data" not in str(error.value)


def test_paths_of_the_other_system_are_read(moved: Path) -> None:
    text = PATH_TAG.sub("!!python/object/apply:pathlib.WindowsPath", moved.read_text())
    moved.write_text(text.replace("output_dir:", "output_dir:", 1))
    config = read_config(moved)
    assert isinstance(config.output_dir, Path) and "\\" not in str(config.relative_model_dir)
    config = read_config(_with(moved, "['C:\\', data, head]", field="data"))
    assert config.data == Path("C:/data/head")


def _with(path: Path, parts: str, field: str) -> Path:
    value = f"!!python/object/apply:pathlib.WindowsPath {parts}"
    path.write_text(re.sub(rf"^{field}: .*$", lambda _: f"{field}: {value}", path.read_text(), flags=re.M))
    return path


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:builtins.open [CANARY, w]",
        "!!python/object/apply:os.system ['touch CANARY']",
        "!!python/object/new:subprocess.Popen [[touch, CANARY]]",
        "!!python/object/apply:nerfstudio.utils.scripts.run_command ['touch CANARY']",
        "!!python/name:nerfstudio.utils.scripts.run_command ''",
        "!!python/module:os ''",
        "!!python/name:edit3dgs_ns.__main__.main ''",
        "!!python/object:edit3dgs_ns.training.model.RiggedSplatfactoModel {}",
    ],
)
def test_nothing_in_a_configuration_is_run(moved: Path, tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(moved.parent)
    moved.write_text(moved.read_text() + f"hostile: {tag}\n")
    for read in (read_config, TrainedRun):
        with pytest.raises(UserError, match=re.escape(str(moved))):
            read(moved)  # type: ignore[operator]
    assert not (moved.parent / "CANARY").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("max_num_iterations: ", "max_num_iterations: x"), "max_num_iterations"),
        (lambda text: "[" * 5000, "no readable config.yml"),
        (lambda text: text[: len(text) // 2], "config.yml"),
        (lambda text: "a: 1", "no configuration of `ns-train`"),
        (lambda text: text + "#" * 5_000_000, "bytes"),
    ],
)
def test_a_damaged_configuration_is_named(moved: Path, change: Callable[[str], str], message: str) -> None:
    moved.write_text(change(moved.read_text()))
    with pytest.raises(UserError, match=message):
        TrainedRun(moved)


def spoil(config: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    (path,) = (config.parent / "nerfstudio_models").iterdir()
    content = torch.load(path, weights_only=True)
    torch.save(change(content) or content, path)


def without(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The model's state but one parameter."""
    return {key: value for key, value in content["pipeline"].items() if key != f"_model.{name}"}


def _set(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda content: content["pipeline"].__setitem__(f"_model.{name}", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c["pipeline"]["_model.gauss_params.means"].__setitem__((0, 1), float("nan")),
            "not finite",
        ),
        (lambda c: c["pipeline"]["_model.binding"].__setitem__(0, 10**6), "to 1000000; the head"),
        (lambda c: c["pipeline"]["_model.binding"].__setitem__(0, -1), "faces -1 to"),
        (_set("gauss_params.scales", torch.zeros(2, 3)), "has the shape"),
        (_set("sh_degree_reached", torch.tensor(9)), "sh_degree_reached is"),
        (_set("head.shape", "x"), "no tensor"),
        (lambda c: {**c, "pipeline": without(c, "gauss_params.quats")}, "has no gauss_params.quats"),
        (lambda c: {**c, "step": "x"}, "'step' is 'x'"),
        (lambda c: {"pipeline": {}, "step": 3}, "no rigged avatar"),
        (lambda c: [1, 2], "no checkpoint of a Nerfstudio run"),
    ],
)
def test_a_checkpoint_that_holds_no_avatar_is_refused_by_every_reader(
    moved: Path, change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    from edit3dgs_ns.runs.exporting import export_pair

    spoil(moved, change)
    with pytest.raises(UserError, match=message):
        TrainedRun(moved)
    if "the head" not in message:  # without the head, nobody knows how many faces it has
        with pytest.raises(UserError, match=f"{message}|no rigged avatar"):
            export_pair(moved, tmp_path / "export")


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"text", b"\x80\x04." * 20])
def test_a_file_that_is_no_checkpoint_is_named(moved: Path, content: bytes) -> None:
    (path,) = (moved.parent / "nerfstudio_models").iterdir()
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(path.name)):
        TrainedRun(moved)


def test_a_checkpoint_cannot_run_anything(moved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tools.measure.fuzz.hostile import CANARY, Runs

    monkeypatch.chdir(moved.parent)
    spoil(moved, lambda content: {**content, "x": Runs()})
    with pytest.raises(UserError, match="more than tensors and numbers"):
        TrainedRun(moved)
    assert not os.path.exists(CANARY)


def test_a_checkpoint_of_an_older_version_opens(moved: Path) -> None:
    spoil(moved, lambda content: {**content, "pipeline": without(content, "sh_degree_reached")})
    assert TrainedRun(moved).pipeline.model.sh_degree_reached >= 0
