"""The demo's bookkeeping, with fake trainings: what is reused, what goes on, what is done again."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from edit3dgs_ns.demo import job as demo_module
from edit3dgs_ns.demo.job import find_ns_train, newest_step, run_demo
from edit3dgs_ns.demo.settings import BASE_METHOD, DemoSettings, EditSettings

REPORT = {
    "base": {task: {"psnr": 30.0, "ssim": 0.9} for task in ("novel_view", "self_reenactment")},
    "edit": {
        "prompt": "p",
        "rounds": 1,
        "edited_images": 2,
        "change_on_head": 0.1,
        "change_on_background": 0.0,
    },
    "seconds": {"capture": 1.0, "base": 2.0, "edit": 3.0, "render": 4.0},
}


class Trainings:
    """Stands in for capture, ns-train and rendering, and writes down what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.done: list[str] = []
        self.commands: list[list[str]] = []
        self.fails = ""
        monkeypatch.setattr(demo_module.Demo, "_capture", self._capture)
        monkeypatch.setattr(demo_module.Demo, "_render", self._render)
        monkeypatch.setattr(demo_module, "run_ns_train", self._train)
        monkeypatch.setattr(demo_module, "check_model", lambda model: model)

    def take(self) -> list[str]:
        done, self.done = self.done, []
        return done

    def _capture(self, resume: bool) -> None:
        # Bound to this object, not to the demo: the folder is where the demo's trainings are told to read.
        self.done.append("capture")
        (self.out / "capture").mkdir(parents=True, exist_ok=True)

    def _train(self, arguments: list[str]) -> int:
        self.commands.append(arguments)
        self.done.append(arguments[0])
        method = arguments[0]
        name = arguments[arguments.index("--experiment-name") + 1]
        (self.out / name / method / "run").mkdir(parents=True, exist_ok=True)
        return 1 if method == self.fails else 0

    def _render(self, *_: object) -> None:
        self.done.append("render")
        for name in ("before_after.png", "reenactment.mp4"):
            (self.out / name).touch()
        (self.out / "report.json").write_text(json.dumps(REPORT))

    out: Path


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Trainings:
    fake = Trainings(monkeypatch)
    fake.out = tmp_path / "demo"
    return fake


ALL = ["capture", BASE_METHOD, "edit3dgs", "render"]


def test_a_second_run_does_nothing(trainings: Trainings) -> None:
    assert run_demo(DemoSettings(), trainings.out) == 0
    assert trainings.take() == ALL
    assert run_demo(DemoSettings(), trainings.out) == 0
    assert trainings.take() == []


def test_another_prompt_keeps_capture_and_avatar(trainings: Trainings) -> None:
    run_demo(DemoSettings(), trainings.out)
    trainings.take()
    run_demo(DemoSettings(prompt="Turn her into a bronze statue"), trainings.out)
    assert trainings.take() == ["edit3dgs", "render"]


def test_another_person_starts_anew(trainings: Trainings) -> None:
    run_demo(DemoSettings(), trainings.out)
    trainings.take()
    run_demo(DemoSettings().with_options("Make him look older", seed=5), trainings.out)
    assert trainings.take() == ALL


def test_a_failed_training_ends_with_code_1_and_is_taken_up_again(
    trainings: Trainings, capfd: pytest.CaptureFixture[str]
) -> None:
    trainings.fails = "edit3dgs"
    assert run_demo(DemoSettings(), trainings.out) == 1
    assert "ns-train edit3dgs ended with code 1" in capfd.readouterr().err
    assert trainings.take() == ALL[:3]
    trainings.fails = ""
    assert run_demo(DemoSettings(), trainings.out) == 0
    assert trainings.take() == ["edit3dgs", "render"]


def test_a_broken_off_training_goes_on_for_what_is_left(trainings: Trainings) -> None:
    settings = replace(DemoSettings(), base_steps=1000)
    trainings.fails = BASE_METHOD
    assert run_demo(settings, trainings.out) == 1
    checkpoints = trainings.out / "base" / BASE_METHOD / "run" / "nerfstudio_models"
    write_checkpoint(checkpoints / "step-000000399.ckpt")
    trainings.fails = ""
    assert run_demo(settings, trainings.out) == 0
    first, second = (command for command in trainings.commands if command[0] == BASE_METHOD)
    assert value_of(first, "--max-num-iterations") == "1000" and "--load-dir" not in first
    assert value_of(second, "--max-num-iterations") == "600"
    assert value_of(second, "--load-dir") == str(checkpoints)


def test_the_trainings_are_asked_for_what_the_settings_say(trainings: Trainings) -> None:
    settings = DemoSettings(prompt="Give her blond hair", edit=EditSettings(rounds=7, edit_every=11))
    run_demo(settings, trainings.out)
    command = trainings.commands[-1]
    assert value_of(command, "--prompt") == "Give her blond hair"
    assert value_of(command, "--pipeline.rounds") == "7"
    assert value_of(command, "--pipeline.edit-every") == "11"
    assert value_of(command, "--pipeline.editor.model") == "demo"
    assert value_of(command, "--pipeline.avatar") == str(trainings.out / "base" / BASE_METHOD / "run")
    assert command[-3:] == ["nersemble-data", "--data", str(trainings.out / "capture")]


def test_an_empty_prompt_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--prompt is empty"):
        run_demo(DemoSettings(prompt="  "), tmp_path)


def test_a_missing_editor_is_noticed_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        run_demo(DemoSettings(editor=str(tmp_path / "nowhere")), tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


def test_torn_checkpoints_do_not_count(tmp_path: Path) -> None:
    assert newest_step(tmp_path) is None
    write_checkpoint(tmp_path / "step-000000100.ckpt")
    whole = (tmp_path / "step-000000100.ckpt").read_bytes()
    (tmp_path / "step-000000200.ckpt").write_bytes(whole[: len(whole) // 2])
    assert newest_step(tmp_path) == 100
    assert not (tmp_path / "step-000000200.ckpt").exists()


def test_ns_train_of_this_environment_is_found() -> None:
    assert Path(find_ns_train()).is_file()


def write_checkpoint(path: Path) -> None:
    """A file like torch.save's, which is a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", b"x" * 1000)
    path.write_bytes(content.getvalue())


def value_of(command: list[str], flag: str) -> str:
    return command[command.index(flag) + 1]
