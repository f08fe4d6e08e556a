"""Nerfstudio's trainer with atomic checkpoints; `checkpoints` finds and reads them."""

from __future__ import annotations

import os
from typing import Any

from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.decorators import check_main_thread
from nerfstudio.utils.rich_utils import CONSOLE

from edit3dgs_ns.splats.checkpoints import find_checkpoint
from edit3dgs_ns.splats.views import camera_extent
from edit3dgs_ns.training.schedulers import scaled_rates


class ResumableTrainer(Trainer):
    """Nerfstudio's trainer, with checkpoints that a crash cannot damage, `--load-dir` that also takes a
    run's folder, and rates of the positions that may be relative to the scene."""

    def setup_optimizers(self) -> Optimizers:
        """The optimizers of the configuration; positions' rates are multiplied by the cameras' extent if the model asks for it."""
        config = dict(self.config.optimizers)
        if getattr(self.config.pipeline.model, "scale_position_rate", False):
            cameras = self.pipeline.datamanager.train_dataset.cameras  # type: ignore[union-attr]
            extent = camera_extent(cameras.camera_to_worlds)
            config["means"] = scaled_rates(config["means"], extent)
        return Optimizers(config, self.pipeline.get_param_groups())

    _last_step: int | None = None
    _is_over = False

    def train_iteration(self, step: int) -> Any:
        """One step; the first one on a machine's CPU says that it compiles."""
        if self._last_step is None and not str(self.device).startswith("cuda"):
            _say_what_compiles()
        result = super().train_iteration(step)
        self._last_step = step
        return result

    def _after_train(self) -> None:
        """Nerfstudio's loop has counted a step already when it breaks off before doing it: the last one is that which was done."""
        if self._last_step is not None:
            self.step = self._last_step
        self._is_over = True
        super()._after_train()

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Writes beside, flushes to the disk, renames; older checkpoints go only then.

        Args:
            step: the last one that is done; -1 before the first. That checkpoint's file is called step-000000000.ckpt, because
                names have no sign; the step in it is -1, so that a run resumed from it begins with step 0.
        """
        pipeline: Any = self.pipeline
        final = self.checkpoint_dir
        self.checkpoint_dir = self.base_dir / "checkpoint.part"
        try:
            with pipeline.completed(keep=self._is_over):
                super().save_checkpoint(step)
        finally:
            unfinished, self.checkpoint_dir = self.checkpoint_dir, final
        written, name = unfinished / f"step-{step:09d}.ckpt", f"step-{max(step, 0):09d}.ckpt"
        with written.open("rb+") as file:
            os.fsync(file.fileno())
        final.mkdir(parents=True, exist_ok=True)
        os.replace(written, final / name)
        unfinished.rmdir()
        if self.config.save_only_latest_checkpoint:
            for path in final.glob("step-*.ckpt"):
                if path.name != name:
                    path.unlink()

    def _load_checkpoint(self) -> None:
        config = self.config
        if config.load_dir is not None and config.load_step is None:
            path = find_checkpoint(config.load_dir, "--load-dir", f"a run of `ns-train {config.method_name}`")
            config.load_dir = path.parent
            config.load_step = int(path.stem.removeprefix("step-"))
        super()._load_checkpoint()


def _say_what_compiles() -> None:
    # Imported here: Nerfstudio reads this file for every one of its commands, and Numba is heavy.
    from edit3dgs_ns.splats.cpu_tiles import blend_backward
    from edit3dgs_ns.splats.jit import compiled_before

    if not compiled_before(blend_backward):
        CONSOLE.log("Compiling the CPU rasterizer (once on this machine; one to two minutes) ...")
