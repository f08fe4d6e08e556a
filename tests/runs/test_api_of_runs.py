"""The Python API shows a run as Nerfstudio's model does, and what it saves goes back into training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from edit3dgs_ns import Avatar, Camera
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.training.load_avatar import load_avatar


def test_a_run_renders_as_nerfstudios_model_does_and_comes_back(
    config: Path, run: TrainedRun, tmp_path: Path
) -> None:
    avatar, split = Avatar.load(config, device="cpu"), run.split("val")
    for number in (0, len(split) - 1):
        seen = split.cameras[number : number + 1]
        c2w = np.eye(4)
        c2w[:3] = seen.camera_to_worlds[0].numpy()
        camera = Camera(c2w, seen.get_intrinsics_matrices()[0].numpy(), int(seen.width), int(seen.height))
        shown = avatar.render(camera, int(split.timesteps[number]))
        assert np.abs(shown - run.render(seen).rgb).max() < 1e-5
    before = {name: value.clone() for name, value in run.pipeline.model.state_dict().items()}
    load_avatar(run.pipeline.model, avatar.save(tmp_path / "avatar.ckpt"))
    after = run.pipeline.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
