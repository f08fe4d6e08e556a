"""Checkpoints: finding the newest, reading it safely, and writing it so that a crash leaves the old one or
the new one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils.decorators import check_main_thread

from edit3dgs_ns.schedulers import scaled_rates
from edit3dgs_ns.splats.views import camera_extent

CHECKPOINT_FOLDER = "nerfstudio_models"
_CHECKPOINT = re.compile(r"step-(\d+)\.ckpt")


def find_checkpoint(run: Path, option: str, what: str) -> Path:
    """The newest checkpoint of a training run.

    Args:
        run: the run's folder, its config.yml, its folder of checkpoints, or a checkpoint.
        option: the flag that gave `run`, for messages.
        what: what it should be, for messages: "a run of `ns-train rigged-splatfacto`".

    Raises:
        FileNotFoundError: there is none.
    """
    run = Path(run).expanduser()
    if run.is_file() and run.suffix == ".ckpt":
        return run
    folder = run.parent if run.is_file() else run
    if not folder.exists():
        raise FileNotFoundError(
            f"{option} {run}: no such file or folder. Expected {what}: its folder, its config.yml or its {CHECKPOINT_FOLDER}."
        )
    for place in (folder, folder / CHECKPOINT_FOLDER):
        steps = {
            int(m[1]): path for path in place.glob("step-*.ckpt") if (m := _CHECKPOINT.fullmatch(path.name))
        }
        if steps:
            return steps[max(steps)]
    inside = sorted(folder.glob(f"**/{CHECKPOINT_FOLDER}"))[:5]
    hint = f" Did you mean one of these? {', '.join(str(p.parent) for p in inside)}" if inside else ""
    raise FileNotFoundError(
        f"{option} {run}: no checkpoint (step-*.ckpt) in it or in its {CHECKPOINT_FOLDER}. Expected {what}; a checkpoint "
        f"appears there once the run has saved one.{hint}"
    )


def read_checkpoint(path: Path, option: str) -> dict[str, Any]:
    """The content of a checkpoint. Nothing but tensors and plain values is ever built from it.

    Raises:
        ValueError: it is damaged, or no checkpoint of Nerfstudio.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{option} {path} cannot be read ({type(error).__name__}: {str(error)[:200]}). It is damaged, or holds "
            "more than tensors and numbers. Use another checkpoint."
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("pipeline"), Mapping):
        raise ValueError(f"{option} {path} is no checkpoint of a Nerfstudio run: it has no 'pipeline'.")
    return content


def model_state(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The model's part of a checkpoint, without Nerfstudio's prefixes."""
    prefix = "_model."
    state = {
        key[len(prefix) :]: value for key, value in content["pipeline"].items() if key.startswith(prefix)
    }
    return {key.removeprefix("module."): value for key, value in state.items()}


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

    @check_main_thread
    def save_checkpoint(self, step: int) -> None:
        """Write beside, flush to the disk, rename; older checkpoints go only then."""
        final = self.checkpoint_dir
        self.checkpoint_dir = self.base_dir / "checkpoint.part"
        try:
            super().save_checkpoint(step)
        finally:
            unfinished, self.checkpoint_dir = self.checkpoint_dir, final
        name = f"step-{step:09d}.ckpt"
        with (unfinished / name).open("rb+") as file:
            os.fsync(file.fileno())
        final.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished / name, final / name)
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
