"""Nerfstudio's trainer with atomic checkpoints that a run goes on from as if it had never stopped."""

from __future__ import annotations

import os
import shutil
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

from nerfstudio.engine.callbacks import TrainingCallback, TrainingCallbackLocation
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils import writer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE
from rich.markup import escape

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.splats.checkpoints import find_checkpoint, read_checkpoint, write_checkpoint
from edit3dgs_ns.splats.views import camera_extent
from edit3dgs_ns.training.coarse_to_fine import short_training_advice
from edit3dgs_ns.training.options import AvatarModelOptions
from edit3dgs_ns.training.resuming import KEY, ResumedTraining, training_state
from edit3dgs_ns.training.schedulers import scaled_rates
from edit3dgs_ns.training.stopping import StopRequest


class ResumableTrainer(Trainer):
    """Nerfstudio's trainer, with checkpoints that a crash cannot damage and that say all that training depends on, `--load-dir`
    that also takes a run's folder, and rates of the positions that may be relative to the scene."""

    def setup(self, test_mode: Any = "val") -> None:
        """As Nerfstudio's; a resumed run draws the random numbers that it would have drawn."""
        advice = f"Go on with the same command and --load-dir {self.checkpoint_dir}"
        self.stop_request = StopRequest(advice, self._is_idle)
        super().setup(test_mode)
        # Nerfstudio divides by one and looks for the other, also where a run that was over has no step to do.
        writer.GLOBAL_BUFFER["max_iter"] = max(self.config.max_num_iterations, 1)
        writer.GLOBAL_BUFFER["step"] = self._start_step
        model = self.config.pipeline.model
        if (
            self._start_step == 0
            and isinstance(model, AvatarModelOptions)
            and not hasattr(self.config.pipeline, "prompt")
        ):
            note = short_training_advice(self.config.max_num_iterations, model)
            if note is not None:
                CONSOLE.log(note)
        if self._resumed is not None:
            where = [TrainingCallbackLocation.BEFORE_TRAIN_ITERATION]
            self.callbacks.insert(0, TrainingCallback(where, self._restore_random))

    def train(self) -> None:
        """As Nerfstudio's; SIGTERM ends it after the step that is being done, with a checkpoint."""
        where = [TrainingCallbackLocation.AFTER_TRAIN_ITERATION]
        self.callbacks.append(TrainingCallback(where, self._end_if_asked))
        with self.stop_request.heeded():
            super().train()

    def setup_optimizers(self) -> Optimizers:
        """The optimizers of the configuration; positions' rates are multiplied by the cameras' extent if the model asks for it."""
        config = dict(self.config.optimizers)
        if getattr(self.config.pipeline.model, "scale_position_rate", False):
            cameras = self.pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
            extent = camera_extent(cameras.camera_to_worlds)
            config["means"] = scaled_rates(config["means"], extent)
        return Optimizers(config, self.pipeline.get_param_groups())

    _last_step: int | None = None
    _compiles = True
    _is_over = False
    _is_complete = False
    """The avatar is what a finished run has ended with: there is nothing to complete."""
    _resumed: ResumedTraining | None = None
    _waits = False
    """The run is over and saved, and the viewer shows it until somebody ends it."""

    def train_iteration(self, step: int) -> Any:
        """One step; the first one on a machine's CPU says that it compiles."""
        if self._compiles and not str(self.device).startswith("cuda"):
            _say_what_compiles()
        self._compiles, self._is_complete = False, False
        result = super().train_iteration(step)
        self._last_step = step
        return result

    def _end_if_asked(self, step: int) -> None:
        if self.stop_request.asked:
            self.save_checkpoint(step)
            self.stop_request.end()

    def _is_idle(self) -> bool:
        """Whether SIGTERM may end the process at once. A paused training does one step more, which ends with a checkpoint."""
        if self.training_state == "paused":
            self.training_state = "training"
        return self._waits

    def _train_complete_viewer(self) -> None:
        """As Nerfstudio's, which waits for somebody to end it; not if that was asked for while the run was saved."""
        self._waits = True
        if self.stop_request.asked:
            self.stop_request.end()
        super()._train_complete_viewer()

    def _after_train(self) -> None:
        """Nerfstudio's loop has counted a step already when it breaks off before doing it: the last one is that which was done."""
        if self._last_step is not None:
            self.step = self._last_step
        if self._resumed is not None and self.step < self._start_step:
            self._resumed.restore_random()  # no step did: this run was over
        self._is_over = True
        super()._after_train()

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Writes beside, flushes to the disk, renames; older checkpoints go only then.

        Args:
            step: the last one that is done; -1 before the first. That checkpoint's file is called step-000000000.ckpt, because
                names have no sign; the step in it is -1, so that a run resumed from it begins with step 0.

        Raises:
            UserError: the disk is full or cannot be written; the former checkpoint is as it was.
        """
        path = self.checkpoint_dir / f"step-{max(step, 0):09d}.ckpt"
        pipeline: Any = self.pipeline
        # Nobody else writes here; what a killed run has left is of no use.
        unfinished = self.base_dir / "checkpoint.part"
        with nullcontext({}) if self._is_complete else pipeline.completed(keep=self._is_over) as trained:
            content = {
                "step": step,
                "pipeline": pipeline.state_dict(),
                "optimizers": {name: o.state_dict() for name, o in self.optimizers.optimizers.items()},
                "schedulers": {name: s.state_dict() for name, s in self.optimizers.schedulers.items()},
                "scalers": self.grad_scaler.state_dict(),
                KEY: training_state(pipeline.model, trained, self._is_over),
            }
            try:
                _write(content, unfinished / path.name, path)
            except OSError as error:
                raise UserError(_cannot_save(path, error)) from error
            finally:
                shutil.rmtree(unfinished, ignore_errors=True)
        if self.config.save_only_latest_checkpoint:
            for other in self.checkpoint_dir.glob("step-*.ckpt"):
                if other.name != path.name:
                    other.unlink()

    def _load_checkpoint(self) -> None:
        path = self._checkpoint_to_load()
        if path is None:
            super()._load_checkpoint()
            return
        content = read_checkpoint(path, "--load-dir")
        step = content["step"]
        self._start_step, self._last_step = step + 1, step
        pipeline: Any = self.pipeline
        pipeline.load_pipeline(content["pipeline"], step)
        optimizers, schedulers = content.get("optimizers", {}), content.get("schedulers", {})
        if unknown := optimizers.keys() - self.optimizers.optimizers.keys():
            raise UserError(
                f"--load-dir {path}: its run trained {', '.join(sorted(unknown))}, this one does not. Go on with the same "
                "method and options."
            )
        self.optimizers.load_optimizers(optimizers)
        if self.config.load_scheduler:
            self.optimizers.load_schedulers(schedulers)
        self.grad_scaler.load_state_dict(content.get("scalers", {}))
        self._resumed = ResumedTraining(content.get(KEY), str(path))
        self._resumed.give_back(pipeline.model)
        self._is_complete = self._resumed.is_complete
        CONSOLE.print(escape(f"Going on with step {step + 1} from {path}"), highlight=False)

    def _checkpoint_to_load(self) -> Path | None:
        config = self.config
        if config.load_dir is None:
            return config.load_checkpoint
        if config.load_step is None:
            path = find_checkpoint(config.load_dir, "--load-dir", f"a run of `ns-train {config.method_name}`")
        else:
            path = config.load_dir / f"step-{config.load_step:09d}.ckpt"
            if not path.is_file():
                raise MissingFileError(f"--load-dir, --load-step: there is no {path}.")
        config.load_dir = path.parent
        config.load_step = int(path.stem.removeprefix("step-"))
        return path

    def _restore_random(self, step: int) -> None:
        if step == self._start_step and self._resumed is not None:
            self._resumed.restore_random()


def _write(content: dict[str, Any], unfinished: Path, path: Path) -> None:
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(content, unfinished)
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(unfinished, path)


def _cannot_save(path: Path, error: OSError) -> str:
    why = error.strerror or str(error)
    former = sorted(other.name for other in path.parent.glob("step-*.ckpt"))
    left = (
        f"{former[-1]} beside it is whole: make room and go on with"
        if former
        else "Make room, and begin again without"
    )
    free = ""
    with suppress(OSError):
        free = f", {shutil.disk_usage(path.parent.parent).free / 2**20:.0f} MiB are free there"
    return f"{path}: this checkpoint cannot be written ({why}{free}). {left} --load-dir."


def _say_what_compiles() -> None:
    # Imported here: Nerfstudio reads this file for every one of its commands, and Numba is heavy.
    from edit3dgs_ns.splats.cpu_tiles import blend_backward
    from edit3dgs_ns.splats.jit import compiled_before

    if not compiled_before(blend_backward):
        CONSOLE.log("Compiling the CPU rasterizer (once on this machine; one to two minutes) ...")
