"""What is rendered in an evaluation: the frames of each setting, sorted into camera paths."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nerfstudio.cameras.cameras import Cameras

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.camera_paths import focus_point
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.runs.trained_run import Split, TrainedRun, moved_camera, pose_matrices

FrameKey = tuple[str, str]
"""Sequence folder and file name: the same frame of the same capture, wherever it lies."""


@dataclass(frozen=True)
class EvaluationView:
    """One image to trajectory."""

    camera: Cameras
    """Shape (1,), with its normalised time."""
    timestep: int
    """Place on the motion, 0 ... T-1."""
    label: str
    """For file names."""
    image: Path | None = None
    """The captured image, if there is one."""


@dataclass(frozen=True)
class Setting:
    """The frames of one setting."""

    key: str
    """Of `report_data.SETTINGS`."""
    paths: list[list[EvaluationView]]
    """Each is one camera and one sequence, in order of time."""
    motion: FlameMotion | None = None
    """What drives the avatars; None: their own motion."""

    @property
    def count(self) -> int:
        """Frames in all."""
        return sum(len(path) for path in self.paths)


def frame_key(image: Path) -> FrameKey:
    """What two runs call the same frame."""
    return image.parent.parent.name, image.name


def frame_keys(run: TrainedRun) -> set[FrameKey]:
    """The held-out frames of a run's capture."""
    return {
        frame_key(Path(image))
        for name in ("val", "test")
        for image in run.split(name).dataset.image_filenames
    }


def shared_frames(runs: Sequence[TrainedRun], names: Sequence[str]) -> set[FrameKey]:
    """The held-out frames that all runs have.

    Raises:
        ValueError: there is none.
    """
    keys = [frame_keys(run) for run in runs]
    common = set.intersection(*keys)
    if not common:
        listing = "; ".join(
            f"{name}: {len(own)} held-out frames, of {', '.join(sorted({k[0] for k in own})[:4]) or 'none'}"
            for name, own in zip(names, keys, strict=True)
        )
        raise UserError(
            f"The runs share no held-out frames ({listing}). Compare edits of one capture, or evaluate each run alone."
        )
    return common


def novel_view(run: TrainedRun, allowed: set[FrameKey]) -> Setting:
    """The held-out camera on the timesteps that were trained on: one path for each sequence."""
    return Setting("novel_view", _paths(run.split("val"), allowed, None))


def self_reenactment(run: TrainedRun, allowed: set[FrameKey], all_cameras: bool = False) -> Setting:
    """The sequence not trained on, seen by the held-out camera (without one, by the middle camera), or by all."""
    test = run.split("test")
    cameras = None if all_cameras else _held_out_cameras(run, test)
    return Setting("self_reenactment", _paths(test, allowed, cameras))


def cross_reenactment(run: TrainedRun, motion: FlameMotion) -> Setting:
    """Another actor's motion, seen by the held-out camera."""
    camera = front_camera(run)
    last = max(len(motion) - 1, 1)
    shots = [EvaluationView(moved_camera(camera, time=t / last), t, f"{t:05d}") for t in range(len(motion))]
    return Setting("cross_reenactment", [shots], motion)


def front_camera(run: TrainedRun) -> Cameras:
    """The held-out camera; without one, the middle camera of the test or the training images."""
    for name in ("val", "test", "train"):
        split = run.split(name)
        if len(split):
            index = 0 if name == "val" else _middle_image(split)
            return split.cameras[index : index + 1]
    raise UserError("The capture lists no frames.")


def thinned(setting: Setting, most: int) -> tuple[Setting, int]:
    """At most about `most` frames: every k-th of each path.

    Returns:
        The setting, and k.
    """
    stride = max(1, math.ceil(setting.count / most)) if most > 0 else 1
    return Setting(setting.key, [path[::stride] for path in setting.paths], setting.motion), stride


def _paths(split: Split, allowed: set[FrameKey], cameras: set[int] | None) -> list[list[EvaluationView]]:
    """The frames of a split by camera and sequence, in order of time."""
    paths: dict[tuple[int, str], list[EvaluationView]] = defaultdict(list)
    indices = _camera_indices(split)
    for i in np.argsort(split.timesteps, kind="stable"):
        image = Path(split.dataset.image_filenames[i])
        if frame_key(image) in allowed and (cameras is None or int(indices[i]) in cameras):
            label = f"{image.parent.parent.name}_{image.stem}"
            shot = EvaluationView(split.cameras[int(i) : int(i) + 1], int(split.timesteps[i]), label, image)
            paths[int(indices[i]), image.parent.parent.name].append(shot)
    return list(paths.values())


def _held_out_cameras(run: TrainedRun, test: Split) -> set[int]:
    held_out = set(_camera_indices(run.split("val")).tolist())
    present = set(_camera_indices(test).tolist())
    if held_out & present or not len(test):
        return held_out & present
    return {int(_camera_indices(test)[_middle_image(test)])}


def _middle_image(split: Split) -> int:
    """The image whose camera is nearest to the mean direction from which all of them look."""
    poses = pose_matrices(split.cameras)
    try:
        centre = focus_point(poses)
    except ValueError:
        return 0
    directions = poses[:, :3, 3] - centre
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return int((directions @ directions.mean(axis=0)).argmax())


def _camera_indices(split: Split) -> np.ndarray:
    return split.dataset.metadata["camera_indices"].numpy()
