"""A training that was stopped anywhere and goes on from its checkpoint ends, bit for bit, like one that was not stopped."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from edit3dgs_ns.editing.store import EditStore
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from edit3dgs_ns.training import one_camera
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.training.trainer import ResumableTrainer
from tests.edit_runs import PulledPlug, checkpoint_of, differing_leaves, store_of, train

STEPS, SAVED_AT, KILLED_AT = 16, 6, 9


def training_of(capture: Path, output: Path, growth: str, **changes: Any) -> Any:
    """Gaussians are split at steps 4, 8 and 12: by gradients that are gathered over both sides of the kill."""
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.timestamp = output, "run"
    config.max_num_iterations, config.steps_per_save = STEPS, 1000
    config.machine.device_type = "cpu"
    config.pipeline.datamanager.dataparser.data = capture
    model = config.pipeline.model
    model.growth, model.warmup_length, model.refine_every, model.densify_grad_thresh = growth, 2, 4, 1e-6
    model.max_gaussians, model.reset_alpha_every = 40_000, 1000
    for name, value in changes.items():
        setattr(config, name, value)
    return config


@pytest.fixture
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("growth", "fills"), [("gradient", "off"), ("mcmc", "off"), ("gradient", "on")])
def test_a_killed_training_ends_like_one_that_was_not(
    small_capture: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    one_thread: None,
    growth: str,
    fills: str,
) -> None:
    def config(name: str, **changes: Any) -> Any:
        made = training_of(small_capture, tmp_path / name, growth, **changes)
        made.pipeline.model.fill_unseen = fills
        return made

    def dying(self: Any, step: int) -> Any:
        if step == KILLED_AT:
            raise PulledPlug
        return iteration(self, step)

    iteration = ResumableTrainer.train_iteration
    whole = config("whole", steps_per_save=SAVED_AT)
    train(whole)
    killed = config("killed", steps_per_save=SAVED_AT)
    monkeypatch.setattr(ResumableTrainer, "train_iteration", dying)
    with pytest.raises(PulledPlug):
        train(killed)
    monkeypatch.undo()
    left = STEPS - (SAVED_AT + 1)
    resumed = config(
        "resumed", steps_per_save=SAVED_AT, load_dir=killed.get_base_dir(), max_num_iterations=left
    )
    train(resumed)
    ends = [checkpoint_of(run.get_base_dir()) for run in (whole, resumed)]
    assert ends[0]["step"] == ends[1]["step"] == STEPS - 1
    assert not differing_leaves(*ends)
    grown = len(ends[0]["pipeline"]["_model.binding"]) > len(
        checkpoint_of(killed.get_base_dir())["pipeline"]["_model.binding"]
    )
    assert grown, "nothing was split after the kill, so that this proves little"


def test_a_finished_run_goes_on_with_no_step_at_all(
    small_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_camera, "ROUNDS", 1)
    monkeypatch.setattr(one_camera, "SETTLING_STEPS", 4)
    first = training_of(small_capture, tmp_path / "a", "gradient", max_num_iterations=5)
    first.pipeline.model.fill_unseen = "on"
    train(first)
    again = training_of(
        small_capture, tmp_path / "b", "gradient", load_dir=first.get_base_dir(), max_num_iterations=0
    )
    again.pipeline.model.fill_unseen = "on"
    from nerfstudio.utils import writer  # late: it runs into an import circle where it is imported first

    writer.GLOBAL_BUFFER.clear()  # as in a process of its own
    train(again)
    assert not differing_leaves(checkpoint_of(first.get_base_dir()), checkpoint_of(again.get_base_dir()))


def test_sigterm_ends_a_training_after_its_step_with_a_checkpoint(
    small_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    forward = RiggedSplatfactoModel.get_loss_dict

    def terminated(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(RiggedSplatfactoModel, "get_loss_dict", terminated)
    config, former = training_of(small_capture, tmp_path, "gradient"), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        train(config)
    assert end.value.code == 143 and checkpoint_of(config.get_base_dir())["step"] == 3
    assert f"--load-dir {config.get_base_dir() / 'nerfstudio_models'}" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == former


def test_sigterm_ends_a_paused_training_with_a_checkpoint(
    small_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    iteration = ResumableTrainer.train_iteration

    def paused(self: Any, step: int) -> Any:
        if step == 3:
            self.training_state = "paused"
        return iteration(self, step)

    monkeypatch.setattr(ResumableTrainer, "train_iteration", paused)
    waiting = SimpleNamespace(sleep=lambda seconds: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr("nerfstudio.engine.trainer.time", waiting)
    config = training_of(small_capture, tmp_path, "gradient")
    with pytest.raises(SystemExit) as end:
        train(config)
    assert end.value.code == 143 and checkpoint_of(config.get_base_dir())["step"] == 4


def test_sigterm_interrupts_a_round_of_edits_at_once(
    make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(views_per_forward=1, correspondence="none")
    put = EditStore.put

    def terminated(self: Any, *args: Any) -> None:
        put(self, *args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(EditStore, "put", terminated)
    with pytest.raises(SystemExit) as end:
        train(config)
    assert end.value.code == 143 and len(store_of(config.get_base_dir())) == 1
    assert checkpoint_of(config.get_base_dir())["step"] == -1


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("[enforce fail] unexpected pos 1")]
)
def test_a_full_disk_is_said_and_the_former_checkpoint_stays(
    small_capture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    config = training_of(small_capture, tmp_path, "gradient", max_num_iterations=4, steps_per_save=2)
    save, calls = torch.save, []

    def full(content: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) > 1:
            Path(path).write_bytes(b"half of it")
            raise error
        save(content, path)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(
        UserError, match=r"step-000000003\.ckpt: this checkpoint cannot be written .*step-000000002\.ckpt"
    ):
        train(config)
    run = config.get_base_dir()
    assert checkpoint_of(run)["step"] == 2 and not list(run.glob("**/*.part"))
