"""Another person's motion, played by an actor.

The actor keeps what is the actor's: shape and static offset, and (unless asked for) the place and the direction of the
head. From the driver come expression, jaw, eyes and neck. Trackers seldom call a resting face zero, and what they call it
differs from person to person: with `neutral="median"` or `"calm"` only the difference from the driver's resting face is taken,
and added to the actor's.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.known_motions import MOST_FRAMES
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.flame.rotations import (
    axis_angle_to_quat,
    inverse,
    mean_rotation,
    multiplied,
    quat_to_axis_angle,
)
from edit3dgs_ns.flame.teeth import FLAME_VERTICES, TEETH_VERTICES

HeadPose = Literal["still", "relative", "absolute"]
Neutral = Literal["zero", "median", "calm"]
CALM_SHARE = 0.1
"""Of the frames: those whose expression moves the face least show it at rest."""
MOST_REST = 0.0007
"""Root mean square displacement (metres) that a resting face may differ from the head model's by: what is more is expression, as of
somebody who smiles all the time."""
_JAW_LEVER = 0.03
"""Root mean square displacement of the face by a radian of the jaw, metres: about that of FLAME and of the open head."""
_JOINTS = ("neck_pose", "jaw_pose", "eyes_pose")
_FLAME_SIZES = (FLAME_VERTICES, FLAME_VERTICES + TEETH_VERTICES)


@dataclass(frozen=True)
class RetargetOptions:
    """Options of retargeting."""

    head_pose: HeadPose = "still"
    """`still`: the head stays where the actor's mostly is. `relative`: it moves from there as the driver's moves from its own mean.
    `absolute`: rotation and translation as recorded, for a driver in the actor's own world."""
    neutral: Neutral | None = None
    """`zero`: expressions and joints as recorded. `median`: relative to each person's resting face, the median over the motion.
    `calm`: relative to the driver's calmest frames, but by no more than faces at rest differ. None: `calm` for a video, else
    `zero`."""
    neutral_frame: int | None = None
    """The driver's resting face is this frame, instead of the median. With `median` only."""
    smooth: float = 0.0
    """Standard deviation, in frames, of a Gaussian over time; 0 for none."""
    calibrate: bool = True
    """Lids and lips as far apart as the driver's, in the driver's own range; for videos, where that is measured."""

    def check(self, driver: RecordedMotion) -> None:
        """Raises a ValueError for options that contradict each other or the motion."""
        if not (math.isfinite(self.smooth) and self.smooth >= 0):
            raise UserError(f"--smooth {self.smooth}: expected a number of frames, 0 or more.")
        frame = self.neutral_frame
        if frame is not None and self.neutral != "median":
            raise UserError(
                f"--neutral-frame {frame} goes with --neutral median: expressions relative to that frame."
            )
        if frame is not None and not 0 <= frame < len(driver.motion):
            raise UserError(
                f"--neutral-frame {frame}: {driver.source} has the frames 0 to {len(driver.motion) - 1}."
            )
        if self.head_pose != "still" and not driver.has_head_pose:
            raise UserError(
                f"--head-pose {self.head_pose}: {driver.source} does not say how the head moves. Use --head-pose still."
            )


def retarget(
    driver: RecordedMotion, actor: FlameMotion, head: FlameAssets, options: RetargetOptions | None = None
) -> tuple[FlameMotion, tuple[str, ...]]:
    """The driver's motion on the actor's head.

    Args:
        driver: any number of frames.
        actor: identity, and a motion to find the actor's resting face and mean place in.
        head: the head model of the actor.
        options: None for the defaults.

    Returns:
        The motion, with as many expression coefficients as the actor's, and what was done about differences, for the user.

    Raises:
        ValueError: the driver belongs to another rig, has more coefficients than the actor, or the options do not fit it.
    """
    options = options or RetargetOptions()
    options.check(driver)
    require_same_rig(driver, head)
    expr, notes = _fitted(driver, actor)
    motion = dataclasses.replace(driver.motion, expr=expr)
    neutral = options.neutral or ("calm" if driver.openness is not None else "zero")
    if neutral == "calm":
        motion = _relative(motion, _calm_face(actor, head), _calm_face(motion, head), head)
    elif neutral == "median":
        frame = options.neutral_frame
        shown = motion if frame is None else motion.slice(frame, frame + 1)
        motion = _relative(motion, _median_face(actor), _median_face(shown), head)
    motion = dataclasses.replace(motion, **_head_pose(motion, actor, options.head_pose))
    if options.smooth > 0:
        motion = smoothed(motion, options.smooth)
    return dataclasses.replace(motion, shape=actor.shape, static_offset=actor.static_offset), notes


def require_same_rig(driver: RecordedMotion, head: FlameAssets) -> None:
    """Raises a ValueError when a motion was tracked with another head model than `head`."""
    motion = driver.motion
    offset = None if motion.static_offset is None else len(motion.static_offset)
    differences = []
    sizes = _FLAME_SIZES if head.num_vertices in _FLAME_SIZES else (head.num_vertices,)
    if offset and offset not in sizes:
        differences.append(f"{offset} vertices, this head has {head.num_vertices}")
    known_shape, known_expr = head.shapedirs.shape[2], head.exprdirs.shape[2]
    # FLAME's directions are ordered by variance, so that a part of them means the same; named ones are all or nothing.
    named = head.expression_names is not None
    for what, found, known in (
        ("shape", len(motion.shape), known_shape),
        ("expression", motion.expr.shape[1], known_expr),
    ):
        if found > known or (named and found != known):
            differences.append(f"{found} {what} coefficients, this head has {known}")
    if differences:
        raise UserError(
            f"{driver.source} was made with another head model than {head.source}: {'; '.join(differences)}. "
            "Give a motion of the same head model: "
            + (
                "a capture made by `edit3dgs capture`, or ARKit coefficients."
                if named
                else "one that was tracked with FLAME (VHAP, GaussianAvatars, the NeRSemble benchmark)."
            )
        )


def frame_places(
    frames: int, motion_fps: float, fps: float, speed: float = 1.0
) -> Float[np.ndarray, " shown"]:
    """Normalised times, in [0, 1], of the frames of a video on a motion.

    Args:
        frames: of the motion.
        motion_fps: its frames per second.
        fps: the video's.
        speed: 2 plays twice as fast.

    Raises:
        ValueError: a rate is not a positive number.
    """
    for option, value in (("--motion-fps", motion_fps), ("--fps", fps), ("--speed", speed)):
        if not (math.isfinite(value) and value > 0):
            raise UserError(f"{option} {value}: expected a positive number.")
    step = speed * motion_fps / fps
    if (shown := (frames - 1) / step) > MOST_FRAMES:
        raise UserError(
            f"--motion-fps {motion_fps:g}, --fps {fps:g}, --speed {speed:g}: {frames} frames of motion are {shown:.3g} of video; "
            f"a video has at most {MOST_FRAMES:,}."
        )
    count = int(shown + 1e-6) + 1
    return np.minimum(np.arange(count) * step / max(frames - 1, 1), 1.0)


def smoothed(motion: FlameMotion, deviation: float) -> FlameMotion:
    """Every parameter averaged over time by a Gaussian (standard deviation in frames); the ends are held.

    Rotations are averaged as quaternions, which for neighbouring frames is their mean rotation to second order.
    """
    smooth = {name: _smoothed_rows(getattr(motion, name), deviation) for name in ("expr", "translation")}
    for name in ("rotation", *_JOINTS):
        joints = getattr(motion, name).unflatten(1, (-1, 3))
        quats = _one_sign(axis_angle_to_quat(joints))
        mean = _smoothed_rows(quats.flatten(1), deviation).unflatten(1, (-1, 4))
        smooth[name] = quat_to_axis_angle(mean).flatten(1)
    return dataclasses.replace(motion, **smooth)


# -- parts ----------------------------------------------------------------------------------------------------------------


def _fitted(driver: RecordedMotion, actor: FlameMotion) -> tuple[Float[Tensor, "T E"], tuple[str, ...]]:
    """The driver's expressions with the actor's number of coefficients."""
    expr, wanted = driver.motion.expr, actor.expr.shape[1]
    found = expr.shape[1]
    if found > wanted and bool((expr[:, wanted:] != 0).any()):
        raise UserError(
            f"{driver.source} has {found} expression coefficients, the avatar was trained with {wanted}: the others would be lost. "
            f"Track the motion with {wanted}, or train the avatar on a capture that was tracked with {found}."
        )
    if found == wanted:
        return expr, ()
    if found > wanted:
        return expr[:, :wanted], (
            f"coefficients {wanted} to {found - 1} of {found} are all zero and left out",
        )
    missing = expr.new_zeros(len(expr), wanted - found)
    note = f"{found} expression coefficients for {wanted} of the avatar: those missing are zero"
    return torch.cat([expr, missing], dim=1), (note,)


def _relative(
    motion: FlameMotion, own: dict[str, Tensor], other: dict[str, Tensor], head: FlameAssets
) -> FlameMotion:
    """Expression and joints with the actor's resting face (`own`) instead of the driver's (`other`)."""
    expr = motion.expr + (own["expr"] - other["expr"]).to(motion.expr)
    # Named expressions are amounts of an action: there is no less than none of it, and no more than all.
    changed = {"expr": expr if head.expression_names is None else expr.clamp(0, 1)}
    for name in _JOINTS:
        turns = getattr(motion, name).unflatten(1, (-1, 3))
        rest, wanted = (
            axis_angle_to_quat(face[name].to(turns).unflatten(0, (-1, 3))) for face in (other, own)
        )
        away = multiplied(axis_angle_to_quat(turns), inverse(rest))
        changed[name] = quat_to_axis_angle(multiplied(away, wanted)).flatten(1)
    return dataclasses.replace(motion, **changed)


def _median_face(motion: FlameMotion) -> dict[str, Tensor]:
    """Expression and joints of the resting face: the medians over time."""
    return {name: _median(getattr(motion, name)) for name in ("expr", *_JOINTS)}


def _calm_face(motion: FlameMotion, head: FlameAssets) -> dict[str, Tensor]:
    """Expression and joints of the resting face: those of the calmest frames, and the median direction of neck and eyes."""
    directions = torch.from_numpy(head.exprdirs[..., : motion.expr.shape[1]])
    by_expr = directions.square().sum(dim=1).mean(dim=0).to(motion.expr)
    moved = (motion.expr.square() @ by_expr + (_JAW_LEVER * motion.jaw_pose[:, 0]).square()).sqrt()
    count = max(1, math.ceil(CALM_SHARE * len(motion)))
    calm = moved.argsort()[:count]
    face = _median_face(motion) | {
        name: _median(getattr(motion, name)[calm]) for name in ("expr", "jaw_pose")
    }
    shown = float(moved[calm].median())
    share = min(1.0, MOST_REST / shown) if shown > 0 else 1.0
    return face | {name: share * face[name] for name in ("expr", "jaw_pose")}


def _head_pose(motion: FlameMotion, actor: FlameMotion, how: HeadPose) -> dict[str, Tensor]:
    """Rotation and translation of every frame."""
    if how == "absolute":
        return {}
    frames = len(motion)
    rotation, translation = mean_rotation(actor.rotation), actor.translation.mean(dim=0)
    if how == "still":
        return {
            "rotation": rotation.expand(frames, 3).clone(),
            "translation": translation.expand(frames, 3).clone(),
        }
    away = multiplied(
        axis_angle_to_quat(motion.rotation), inverse(axis_angle_to_quat(mean_rotation(motion.rotation)))
    )
    turned = quat_to_axis_angle(multiplied(away, axis_angle_to_quat(rotation)))
    return {
        "rotation": turned,
        "translation": translation + motion.translation - motion.translation.mean(dim=0),
    }


def _median(rows: Float[Tensor, "T width"]) -> Float[Tensor, " width"]:
    """Median over time; of an even number of frames the mean of both middle ones (torch takes the lower)."""
    return torch.quantile(rows.double(), 0.5, dim=0).to(rows)


def _one_sign(quats: Float[Tensor, "T joints 4"]) -> Float[Tensor, "T joints 4"]:
    """The same rotations, each quaternion on the side of the one before."""
    turns = (quats[1:] * quats[:-1]).sum(-1, keepdim=True) < 0
    flips = torch.where(turns, -1.0, 1.0).to(quats)
    return torch.cat([quats[:1], quats[1:] * torch.cumprod(flips, dim=0)])


def _smoothed_rows(rows: Float[Tensor, "T width"], deviation: float) -> Float[Tensor, "T width"]:
    reach = max(1, math.ceil(3 * deviation))
    smooth = gaussian_filter1d(rows.cpu().numpy(), deviation, axis=0, mode="nearest", radius=reach)
    return torch.from_numpy(smooth).to(rows)
