"""The views of a run in a before/after grid: three directions, and expressions that differ clearly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras

from edit3dgs_ns.evaluation.camera_paths import focus_point, sway
from edit3dgs_ns.evaluation.expressions import describe, most_different
from edit3dgs_ns.runs.trained_run import Split, TrainedRun, moved_camera, pose_matrices

SIDE = np.radians(32.0)
"""How far the side views are turned from the front."""
NUM_EXPRESSIONS = 3


def comparison_views(run: TrainedRun) -> Iterator[tuple[str, str, Cameras]]:
    """Yields (group, caption, camera): three directions at the most neutral timestep, then unseen expressions."""
    val, test = run.split("val"), run.split("test")
    val = val if len(val) else run.split("train")  # captures with a single camera hold none out
    neutral = _most_neutral(run, val)
    front = val.cameras[neutral : neutral + 1]
    target = _target(pose_matrices(run.split("train").cameras))
    # Positive turns move the camera to +x: to the subject's own left, the right side of the image.
    for caption, angle in (("right side", -SIDE), ("front", 0.0), ("left side", SIDE)):
        # A sway of four poses is at its farthest, `angle`, in the second.
        pose = sway(pose_matrices(front)[0], target, 4, angle)[1]
        yield "views not trained on", caption, moved_camera(front, c2w=pose)
    for index, caption in _expressions(run, test) if len(test) else ():
        time_ = float(test.times[index])
        yield "expressions of a sequence not trained on", caption, moved_camera(front, time=time_)


def _target(poses: Float[np.ndarray, "views 4 4"]) -> Float[np.ndarray, " 3"]:
    """Returns the point that the cameras face; of a single camera, the point a metre ahead, where heads usually are."""
    try:
        return focus_point(poses)
    except ValueError:
        return poses[0, :3, 3] - poses[0, :3, 2]


def _most_neutral(run: TrainedRun, split: Split) -> int:
    """Returns the image with the expression nearest to the neutral one."""
    motion = run.motion
    strength = np.linalg.norm(_expression_features(motion, split.timesteps), axis=1)
    return int(strength.argmin())


def _expressions(run: TrainedRun, split: Split) -> list[tuple[int, str]]:
    """Returns images of clearly different expressions, with captions."""
    motion = run.motion
    jaw = np.linalg.norm(motion.jaw_pose.numpy()[split.timesteps], axis=1)
    features = _expression_features(motion, split.timesteps)
    chosen = most_different(features, NUM_EXPRESSIONS, first=int(jaw.argmax()))
    return [
        (index, describe(motion.expr[t].numpy(), motion.jaw_pose[t].numpy(), run.expression_names))
        for index, t in zip(chosen, split.timesteps[chosen], strict=True)
    ]


def _expression_features(motion: Any, timesteps: np.ndarray) -> Float[np.ndarray, "images values"]:
    """Expression, jaw and gaze as one vector; a radian counts like three units of an expression."""
    parts = [motion.expr.numpy(), 3 * motion.jaw_pose.numpy(), 3 * motion.eyes_pose.numpy()]
    return np.concatenate(parts, axis=1)[timesteps]
