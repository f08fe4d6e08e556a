"""What is known of heads and videos before a landmark is seen: the ranges of the parameters, and how fast they change.

Standard deviations are in the parameters' own units: radians, metres, amounts of an action (0 to 1), coefficients. Those of
change are for a thirtieth of a second.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.flame.arkit import GAZE
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.tracking.surface_points import EYES, JAW, NECK, NUM_POSE, ROTATION, TRANSLATION

FREE = 1e3
"""Standard deviation of what no prior holds."""
FIELD_OF_VIEW = 60.0
"""Degrees of the longer side of a whole frame: what phones and webcams have."""
FIELD_OF_VIEW_STD = 1.5
"""Of the focal length's logarithm that follows: many videos are cut out of larger frames."""
DISTANCE = 0.9
"""Metres between head and camera: people are filmed from 0.4 m (a phone in the hand) to 2 m."""
DISTANCE_STD = 0.45
"""Of its logarithm."""
BOUND_STD = 0.03
"""How far an amount may leave [0, 1]."""
LID_STD = 0.15
"""How closely the lids follow the gaze, as an amount."""
GAZE_STD = (0.03, 0.08)
"""Difference between the two eyes' pitch and yaw: they look at one place, perhaps a near one."""
OF_ACTIONS = {"eyeBlink": (0.7, 0.6), "eyeWide": (0.7, 0.6), "tongueOut": (0.15, 0.2), "cheekPuff": (0.15, 0.2)} | {
    "jawForward": (0.15, 0.2), "eyeLookIn": (0.02, 0.2), "eyeLookOut": (0.02, 0.2)
}  # fmt: skip
"""Range and change of actions that differ from the others: lids are fast; what landmarks hardly show stays small."""
OF_SHAPES = {
    "gender_male": (-0.3, 0.9),
    "age": (0.0, 0.3),
    "muscle": (0.0, 0.3),
    "weight": (0.0, 0.4),
} | dict.fromkeys(("african", "asian", "caucasian"), (0.0, 0.4))
"""Mean and range of the open head's shape directions that differ from the others."""


@dataclass(frozen=True)
class FitPriors:
    """Gaussian priors of the unknowns."""

    frame_std: Float[Tensor, " D"]
    """Of a frame's parameters, around zero."""
    bounded: Float[Tensor, " D"]
    """1 for what lives in [0, 1], else 0."""
    change_std: Float[Tensor, " D"]
    """Of the change from one frame to the next."""
    shape_mean: Float[Tensor, " S"]
    shape_std: Float[Tensor, " S"]
    log_focal: float
    log_focal_std: float
    focal_known: bool
    lids: tuple[tuple[int, int, float], ...] = ()
    """(column of an eye's pitch, column of a lid's action, sign): the lid follows the eye that way."""

    def of_frames(self, frames: Float[Tensor, "T D"]) -> tuple[Tensor, Tensor, float]:
        """Hessian (T, D, D), gradient (T, D) and value of the priors of single frames."""
        precision = self.frame_std**-2
        outside = torch.where(frames > 1, frames - 1, frames.clamp(max=0)) * self.bounded
        stiffness = (outside != 0) / BOUND_STD**2
        gradient = precision * frames + stiffness * outside
        value = float((precision * frames**2 + stiffness * outside**2).sum())
        hessian = torch.diag_embed(precision + stiffness)
        rows = [({EYES.start + k: 1.0, EYES.start + 3 + k: -1.0}, std) for k, std in enumerate(GAZE_STD)]
        for entries, std in rows:
            value += _add_relation(
                hessian, gradient, frames, {c: torch.tensor(v) for c, v in entries.items()}, std
            )
        for pitch, lid, sign in self.lids:
            # amount = max(0, sign * pitch) / GAZE
            slope = (sign * frames[:, pitch] > 0) * (-sign / GAZE)
            value += _add_relation(hessian, gradient, frames, {lid: torch.tensor(1.0), pitch: slope}, LID_STD)
        return hessian, gradient, value

    def stiffness(
        self, elapsed: Float[Tensor, " T-1"] | None = None
    ) -> Float[np.ndarray, " D"] | Float[np.ndarray, "T-1 D"]:
        """Precision of what changes from one frame to the next.

        Args:
            elapsed: frames of the video between them, where not all were used: what may change grows with its square root.
        """
        precision = self.change_std.numpy() ** -2.0
        return precision if elapsed is None else precision / elapsed.numpy()[:, None]

    def at_distance(self, focal: float, distance: float) -> FitPriors:
        """The same, with what the head's size in the image says about the focal length, where that is not known.

        The size gives the ratio of focal length and distance alone. People are filmed from a narrow range of distances, so the
        ratio times the usual distance is a focal length; its logarithm is averaged with that of the usual field of view, weighted
        by their precisions.

        Args:
            focal: pixels, any.
            distance: metres at which the head has its size in the image under that focal length.
        """
        if self.focal_known:
            return self
        of_distance = float(np.log(focal * DISTANCE / distance))
        precisions = np.array([self.log_focal_std, DISTANCE_STD]) ** -2.0
        mean = float(precisions @ [self.log_focal, of_distance] / precisions.sum())
        return replace(self, log_focal=mean, log_focal_std=float(precisions.sum() ** -0.5))

    def of_shared(self, shape: Float[Tensor, " S"], log_focal: float) -> tuple[np.ndarray, np.ndarray]:
        """Precision and deviation of the shape coefficients, then of the focal length's logarithm."""
        precision = torch.cat([self.shape_std**-2, torch.tensor([self.log_focal_std**-2]).double()])
        error = torch.cat([shape - self.shape_mean, torch.tensor([log_focal - self.log_focal]).double()])
        return precision.numpy(), error.numpy()


def _add_relation(
    hessian: Tensor, gradient: Tensor, frames: Tensor, factors: dict[int, Tensor], std: float
) -> float:
    """Add the square of a sum of columns times factors; returns its value now."""
    error = torch.stack([factor * frames[:, column] for column, factor in factors.items()]).sum(0) / std
    for a, by_a in factors.items():
        gradient[:, a] += error * by_a / std
        for b, by_b in factors.items():
            hessian[:, a, b] += by_a * by_b / std**2
    return float((error**2).sum())


def priors_of(head: FlameAssets, longer_side: float, fps: float, focal: float | None = None) -> FitPriors:
    """Priors for a head model and a video.

    Args:
        head: the open head, whose expressions are ARKit's actions, or FLAME, whose coefficients are standard deviations.
        longer_side: of the whole frame, in pixels of the image that is fitted.
        fps: frames a second.
        focal: pixels of that image, if known.
    """
    names, num_expr = head.expression_names, head.exprdirs.shape[2]
    frame = torch.full((NUM_POSE + num_expr,), FREE).double()
    change = torch.full_like(frame, FREE)
    bounded = torch.zeros_like(frame)
    # A person turns the head on the neck; the body moves slowly. Its joint is far below the face: a turn shifts the face in depth.
    frame[NECK], change[NECK] = 0.35, 0.06
    change[ROTATION], change[TRANSLATION] = 0.001, 0.002
    # Hardly seen (what comes a centimetre closer grows by a hundredth), and smooth: a step that is taken shows at once.
    change[TRANSLATION.stop - 1] = 0.0002
    frame[JAW], change[JAW] = torch.tensor([0.3, 0.02, 0.02]).double(), 0.10
    bounded[JAW.start] = 1
    frame[EYES], change[EYES] = torch.tensor([0.3, 0.4, 0.002] * 2).double(), 0.25
    frame[NUM_POSE:], change[NUM_POSE:] = (0.45, 0.2) if names else (1.0, 0.4)
    lids: list[tuple[int, int, float]] = []
    if names:
        bounded[NUM_POSE:] = 1
        for column, name in enumerate(names, start=NUM_POSE):
            action = name.removesuffix("Left").removesuffix("Right")
            frame[column], change[column] = OF_ACTIONS.get(action, (0.45, 0.2))
            if action in ("eyeLookDown", "eyeLookUp"):
                pitch = EYES.start + (0 if name.endswith("Left") else 3)
                lids.append((pitch, column, 1.0 if action == "eyeLookDown" else -1.0))
    mean, std = torch.zeros(head.shapedirs.shape[2]).double(), torch.ones(head.shapedirs.shape[2]).double()
    for number, name in enumerate(head.shape_names or ()):
        mean[number], std[number] = OF_SHAPES.get(name, (0.0, 0.6))
    guess = 0.5 * longer_side / np.tan(np.radians(FIELD_OF_VIEW / 2))
    return FitPriors(
        frame_std=frame,
        bounded=bounded,
        change_std=change * (30 / fps) ** 0.5,
        shape_mean=mean,
        shape_std=std,
        log_focal=float(np.log(focal or guess)),
        log_focal_std=1e-3 if focal else FIELD_OF_VIEW_STD,
        focal_known=focal is not None,
        lids=tuple(lids),
    )
