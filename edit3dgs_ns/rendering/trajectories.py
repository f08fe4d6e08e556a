"""What a video shows: for each of its frames one camera or several, and a normalised time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.cameras.camera_paths import get_path_from_json
from nerfstudio.cameras.camera_utils import get_interpolated_poses_many
from nerfstudio.cameras.cameras import Cameras, CameraType

from edit3dgs_ns.console import counted
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.evaluation.camera_paths import focus_point, orbit, sway
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.runs.trained_run import TrainedRun, pose_matrices
from edit3dgs_ns.untrusted import parse_json

SWAY, LIFT = math.radians(24.0), math.radians(6.0)
"""How far a swaying camera swings to the sides, and up and down."""
LEAST_SIDE, MOST_SIDE = 8, 8192
"""Pixels of a side of a video; encoders refuse more."""
_NO_ROTATION = 1e-2
"""Largest error of R R^T of a matrix that is taken for a rotation."""
_FEW_DEGREES, _ALL_AROUND = 30.0, 300.0
"""A turntable turns at least so far, where cameras stand on one side only; and around, where they stand nearly all around."""
_TIMED_PATH = (
    'In ns-viewer\'s Render panel every keyframe has a time if the run is one of an avatar; by hand, add "render_time" (a place on '
    "the motion, from 0 to 1) to each entry. Or use --cameras front, which goes through the whole motion."
)


@dataclass(frozen=True)
class Trajectory:
    """The cameras of a video."""

    cameras: Cameras
    """Those of the first frame, then those of the next, ...; each with its normalised time in `times`."""
    views: int = 1
    """Cameras of each frame; they share size and time."""

    def __post_init__(self) -> None:
        sizes = {
            (int(w), int(h))
            for w, h in zip(self.cameras.width.flatten(), self.cameras.height.flatten(), strict=True)
        }
        if len(sizes) != 1:
            listing = ", ".join(f"{w} x {h}" for w, h in sorted(sizes))
            raise UserError(
                f"The cameras have images of different sizes ({listing or 'there are none'}); a video has one."
            )
        assert self.cameras.times is not None and len(self.cameras) % self.views == 0

    def __len__(self) -> int:
        """Frames."""
        return len(self.cameras) // self.views

    def at(self, frame: int) -> Cameras:
        """The cameras of one frame."""
        return self.cameras[frame * self.views : (frame + 1) * self.views]

    @property
    def times(self) -> Float[np.ndarray, " frames"]:
        """The frames' normalised times."""
        assert self.cameras.times is not None
        return self.cameras.times[:: self.views, 0].numpy()

    def scaled(self, scale: float) -> Trajectory:
        """The same with `scale` times as many pixels a side."""
        if not (math.isfinite(scale) and scale > 0):
            raise UserError(f"--scale {scale}: expected a positive number.")
        if scale == 1.0:
            return self
        width, height = (
            int(getattr(self.cameras, side).flatten()[0]) * scale for side in ("width", "height")
        )
        if min(width, height) < LEAST_SIDE or max(width, height) > MOST_SIDE:
            raise UserError(
                f"--scale {scale:g}: gives {width:.0f} x {height:.0f} pixels; expected sides from {LEAST_SIDE} to {MOST_SIDE}."
            )
        trajectory = Trajectory(self.cameras[:], self.views)
        trajectory.cameras.rescale_output_resolution(scale)
        return trajectory


def choose_trajectory(run: TrainedRun, cameras: str, times: Float[np.ndarray, " frames"]) -> Trajectory:
    """The trajectory that `--cameras` asks for.

    Args:
        run: the avatar, with its capture.
        cameras: `front`, `sway`, `capture`, or a camera path of Nerfstudio (json), whose own times count.
        times: normalised times of the frames, but for a camera path.

    Raises:
        FileNotFoundError, ValueError: no such camera path, or it is damaged, empty or without times.
    """
    if cameras == "front":
        return still(front_camera(run), times)
    if cameras == "sway":
        return swaying(run, times)
    if cameras == "capture":
        return still(capture_cameras(run), times)
    return read_camera_path(Path(cameras))


def still(cameras: Cameras, times: Float[np.ndarray, " frames"]) -> Trajectory:
    """Cameras that stay where they are."""
    return Trajectory(_repeated(cameras, times), len(cameras))


def moving(
    camera: Cameras, c2w: Float[np.ndarray, "frames 4 4"], times: Float[np.ndarray, " frames"]
) -> Trajectory:
    """One camera, shape (1,), that moves."""
    cameras = _repeated(camera, times)
    cameras.camera_to_worlds = torch.from_numpy(c2w[:, :3]).to(cameras.camera_to_worlds)
    return Trajectory(cameras)


def swaying(run: TrainedRun, times: Float[np.ndarray, " frames"]) -> Trajectory:
    """The front camera, swinging once to both sides."""
    front, target = front_camera(run), head_centre(run)
    return moving(front, sway(pose_matrices(front)[0], target, len(times), SWAY, LIFT), times)


def turntable(
    run: TrainedRun, times: Float[np.ndarray, " frames"], degrees: float | None = None
) -> Trajectory:
    """The front camera goes around the head; over less than 360 degrees, to both sides and back.

    Args:
        run: the avatar, with its capture.
        times: normalised times of the frames.
        degrees: None: as far as the capture's cameras stand. Behind them, an avatar has learnt nothing.

    Raises:
        ValueError: `degrees` is no angle from 1 to 360.
    """
    front, target = front_camera(run), head_centre(run)
    start = pose_matrices(front)[0]
    degrees = seen_degrees(run, start, target) if degrees is None else degrees
    if not (math.isfinite(degrees) and 1 <= degrees <= 360):
        raise UserError(f"--degrees {degrees}: expected an angle from 1 to 360.")
    if degrees == 360:
        return moving(front, orbit(start, target, len(times)), times)
    return moving(front, sway(start, target, len(times), math.radians(degrees / 2)), times)


def seen_degrees(run: TrainedRun, start: Float[np.ndarray, "4 4"], target: Float[np.ndarray, " 3"]) -> float:
    """The angle about the vertical axis that the training cameras cover on both sides of `start`."""
    offsets = pose_matrices(run.split("train").cameras)[:, :3, 3] - target
    azimuth = np.arctan2(offsets[:, 0], offsets[:, 2])
    middle = math.atan2(start[0, 3] - target[0], start[2, 3] - target[2])
    away = (azimuth - middle + np.pi) % (2 * np.pi) - np.pi
    covered = 2 * math.degrees(max(0.0, min(away.max(), -away.min())))
    if covered < _FEW_DEGREES:
        return _FEW_DEGREES
    return 360.0 if covered > _ALL_AROUND else covered


def between(cameras: Cameras, steps: int) -> Trajectory:
    """From camera to camera as `ns-render interpolate` goes, and from time to time, which it drops.

    Raises:
        ValueError: fewer than two cameras or steps, or cameras without times.
    """
    if len(cameras) < 2 or steps < 2:
        raise UserError(
            f"{counted(len(cameras), 'camera')} and --steps {steps}: there is nothing between them. Expected at least "
            "two of each; other images of the capture: --split train"
        )
    if cameras.times is None:
        raise UserError("These cameras have no times, so there is nothing to go through.")
    poses, intrinsics = get_interpolated_poses_many(
        cameras.camera_to_worlds, cameras.get_intrinsics_matrices(), steps_per_transition=steps
    )
    shares = torch.linspace(0, 1, steps)
    first, second = cameras.times[:-1], cameras.times[1:]
    times = first + (second - first) * shares
    return Trajectory(
        Cameras(
            camera_to_worlds=torch.as_tensor(poses).float(),
            fx=intrinsics[:, 0, 0].float(),
            fy=intrinsics[:, 1, 1].float(),
            cx=intrinsics[:, 0, 2].float(),
            cy=intrinsics[:, 1, 2].float(),
            width=int(cameras.width[0]),
            height=int(cameras.height[0]),
            camera_type=cameras.camera_type[0],
            times=times.reshape(-1, 1),
        )
    )


def capture_cameras(run: TrainedRun) -> Cameras:
    """Every camera of the capture once, in the order of their numbers."""
    found: dict[int, Cameras] = {}
    for name in ("val", "train", "test"):
        split = run.split(name)
        for row, number in enumerate(split.dataset.metadata["camera_indices"].tolist()):
            found.setdefault(number, split.cameras[row : row + 1])
    cameras = [found[number] for number in sorted(found)]

    def column(name: str) -> torch.Tensor:
        return torch.cat([getattr(camera, name) for camera in cameras])

    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "camera_type", "times")
    columns: dict[str, Any] = {name: column(name) for name in names}
    return Cameras(**columns)


def head_centre(run: TrainedRun) -> Float[np.ndarray, " 3"]:
    """What the capture's cameras look at; a single camera's axis says no point, so then the middle of the head."""
    try:
        return focus_point(pose_matrices(run.split("train").cameras))
    except ValueError:
        vertices = run.pipeline.model.head.vertices_at(0.0).detach()
        return (vertices.amin(dim=0) + vertices.amax(dim=0)).cpu().double().numpy() / 2


# -- camera paths of Nerfstudio -------------------------------------------------------------------------------------------


def read_camera_path(path: Path) -> Trajectory:
    """A camera path as ns-viewer writes it, with a normalised time for each of its cameras.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is damaged, empty, of panoramic cameras, or its cameras have no times.
    """
    content, entries = _camera_path(path)
    _require_times(path, entries)
    try:
        cameras = get_path_from_json(content)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        raise UserError(f"{path}: no camera path of Nerfstudio ({type(error).__name__}: {error}).") from error
    if not bool((cameras.camera_type == CameraType.PERSPECTIVE.value).all()):
        raise UserError(
            f"{path}: has {content.get('camera_type')} cameras; avatars are drawn with perspective ones."
        )
    _require_finite(path, cameras)
    size = content["render_width"], content["render_height"]
    if not all(isinstance(side, (int, float)) and LEAST_SIDE <= side <= MOST_SIDE for side in size):
        raise UserError(
            f"{path}: asks for {size[0]} x {size[1]} pixels; expected sides from {LEAST_SIDE} to {MOST_SIDE}."
        )
    times = torch.tensor([entry["render_time"] for entry in entries], dtype=torch.float32)
    cameras.times = times[:, None]
    cameras.width = torch.full_like(cameras.fx, int(content["render_width"]), dtype=torch.int64)
    cameras.height = torch.full_like(cameras.fx, int(content["render_height"]), dtype=torch.int64)
    return Trajectory(cameras)


def _require_finite(path: Path, cameras: Cameras) -> None:
    """Raises a ValueError for cameras that are nowhere, or see nothing."""
    poses = cameras.camera_to_worlds
    axes = poses[:, :3, :3].double()
    turned = (axes @ axes.transpose(1, 2) - torch.eye(3, dtype=axes.dtype)).abs().amax(dim=(1, 2))
    wrong = ~torch.isfinite(poses).all(dim=2).all(dim=1) | ~(turned < _NO_ROTATION)
    for focal in (cameras.fx, cameras.fy):
        wrong |= ~(torch.isfinite(focal) & (focal > 0))[:, 0]
    if bool(wrong.any()):
        raise UserError(
            f"{path}: camera {int(wrong.nonzero()[0])} has a camera_to_world or a fov that no camera has ({int(wrong.sum())} such "
            "cameras). Expected 16 finite numbers, of a rotation and a position, and degrees between 0 and 180."
        )


def path_fps(path: Path) -> float | None:
    """Frames per second of a camera path, where it says how long it is."""
    content, entries = _camera_path(path)
    seconds = content.get("seconds")
    if isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0:
        return len(entries) / seconds
    return None


def _camera_path(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The content of a camera path, and its cameras."""
    if not path.is_file():
        raise MissingFileError(
            f"--cameras {path}: no such file. Expected front, sway, capture, or a camera path (json) that ns-viewer has saved."
        )
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"--cameras {path} is not valid JSON: {error}.") from error
    entries = content.get("camera_path") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise UserError(
            f'--cameras {path}: no camera path of Nerfstudio: it has no list under "camera_path".'
        )
    if not entries:
        raise UserError(
            f"--cameras {path}: the camera path is empty. Add keyframes in ns-viewer's Render panel, or use --cameras front."
        )
    return content, entries


def _require_times(path: Path, entries: Sequence[dict[str, Any]]) -> None:
    timed = [entry for entry in entries if entry.get("render_time") is not None]
    if len(timed) < len(entries):
        raise UserError(
            f'--cameras {path}: {len(entries) - len(timed)} of {len(entries)} cameras have no "render_time", so nothing says which '
            f"moment they see. {_TIMED_PATH}"
        )
    for number, entry in enumerate(entries):
        time = entry["render_time"]
        if not (isinstance(time, (int, float)) and 0 <= time <= 1):
            raise UserError(
                f"--cameras {path}: camera {number} has the render_time {time!r}, expected a normalised time from 0 to 1."
            )


def _repeated(cameras: Cameras, times: Float[np.ndarray, " frames"]) -> Cameras:
    """The same cameras for every time."""
    frames, views = len(times), len(cameras)

    def every(name: str) -> torch.Tensor:
        values = getattr(cameras, name)
        return values.repeat(frames, *[1] * (values.ndim - 1))

    names = ("camera_to_worlds", "fx", "fy", "cx", "cy", "width", "height", "camera_type")
    moments = torch.from_numpy(np.asarray(times, np.float32)).repeat_interleave(views)[:, None]
    columns: dict[str, Any] = {name: every(name) for name in names}
    return Cameras(**columns, times=moments)
