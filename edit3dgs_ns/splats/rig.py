"""The tracked head as a trainable module: FLAME parameters over time, and the triangle frames they give.

Expression, pose and translation of every timestep can be fine-tuned, because no tracker is exact (GaussianAvatars,
section 3.3); shape and static offset stay fixed. All of them are saved with the avatar, so that it can be shown without its
capture; the FLAME model itself is not (licensed data does not belong into checkpoints).

Poses that are passed around are those of the motion, unedited. An offset of the resting expression (an edit of expression) is
added where a pose becomes vertices or appearance: whatever moves the head, a driver or a slider, plays on top of it.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.expression_offset import ExpressionOffset
from edit3dgs_ns.flame.model import FlameModel, FlamePose, ShapedHead
from edit3dgs_ns.flame.motion import NEEDS_TEETH, FlameMotion
from edit3dgs_ns.flame.teeth import FLAME_VERTICES
from edit3dgs_ns.splats.binding import TriangleFrames, triangle_frames

POSE_PARAMETERS = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
"""Parameters that vary over time, by FlameMotion's names."""
OFFSET_BUFFERS = ("expression_offset", "jaw_offset", "offset_scale")
"""What a head keeps of its offset of expression; checkpoints of older versions have none."""

_ON_TIMESTEP = 1e-3
"""Times this close (in timesteps) to a timestep are rounded to it; float32 times are accurate to about 1e-4."""


class TrackedHead(nn.Module):
    """One head over T timesteps. Normalised times t in [0, 1]: timestep t (T - 1), in between interpolated.

    Args:
        flame: the parametric head; followed to the device, kept out of `state_dict`.
        motion: the tracked parameters.

    Raises:
        ValueError: `motion` does not fit `flame` (its coefficients or its static offset).
    """

    shape: Tensor
    static_offset: Tensor
    expression_offset: Tensor
    """(E,) see `ExpressionOffset`; as it was fitted, before `offset_scale`."""
    jaw_offset: Tensor
    """(3,) axis-angle, radians."""
    offset_scale: Tensor
    """() how much of both is shown."""

    def __init__(self, flame: FlameModel, motion: FlameMotion):
        super().__init__()
        motion = motion.with_teeth_offset(flame.num_vertices)
        check_motion(flame, motion)
        self._flame = (flame,)  # in a tuple: not a submodule, so not part of state_dict
        self._shaped: ShapedHead | None = None
        offset = motion.static_offset
        self.register_buffer("shape", motion.shape.detach().clone().float())
        self.register_buffer(
            "static_offset",
            torch.zeros(flame.num_vertices, 3) if offset is None else offset.detach().clone().float(),
        )
        self.register_buffer("expression_offset", torch.zeros(flame.num_expr))
        self.register_buffer("jaw_offset", torch.zeros(3))
        self.register_buffer("offset_scale", torch.ones(()))
        self._offset: ExpressionOffset | None = None
        self._offset_known = True
        self.pose = nn.ParameterDict(
            {name: nn.Parameter(getattr(motion, name).detach().clone().float()) for name in POSE_PARAMETERS}
        )

    @property
    def num_timesteps(self) -> int:
        """T, the number of timesteps of the motion."""
        return len(self.pose["translation"])

    @property
    def flame(self) -> FlameModel:
        """The parametric head."""
        return self._flame[0]

    @property
    def faces(self) -> Int[Tensor, "faces 3"]:
        """Corners of every face."""
        return self.flame.faces

    def motion(self) -> FlameMotion:
        """The parameters as they are now (fine-tuned), detached copies; without the offset of expression."""
        pose = {name: self.pose[name].detach().clone() for name in POSE_PARAMETERS}
        return FlameMotion(shape=self.shape.clone(), static_offset=self.static_offset.clone(), **pose)

    def shown_motion(self) -> FlameMotion:
        """The motion with the offset of expression baked in: for files that have no place for it."""
        motion = self.motion()
        return motion.with_pose(self.under_offset(motion.pose()))

    def set_motion(self, motion: FlameMotion) -> None:
        """Moves by the expressions and poses of `motion` from now on, of any length; the identity (shape, offset) stays.

        Raises:
            ValueError: `motion` has more expression coefficients than the head.
        """
        check_motion(self.flame, motion, identity=False)
        for name in POSE_PARAMETERS:
            self.pose[name].data = getattr(motion, name).detach().clone().to(self.pose[name])

    # -- offset of expression --

    @property
    def offset(self) -> ExpressionOffset | None:
        """What is added to every pose, scaled; None where nothing is."""
        if not self._offset_known:
            whole = ExpressionOffset(self.expression_offset, self.jaw_offset, self.flame.expression_names)
            scaled = whole.scaled(float(self.offset_scale))
            self._offset, self._offset_known = None if scaled.is_zero else scaled, True
        return self._offset

    @torch.no_grad()
    def set_offset(self, offset: ExpressionOffset | None, scale: float = 1.0) -> None:
        """Shows every pose under `scale` times an offset of the resting expression from now on; None takes it away."""
        assert offset is None or len(offset.expr) == self.flame.num_expr
        self.expression_offset = torch.zeros_like(self.expression_offset)
        self.jaw_offset = torch.zeros_like(self.jaw_offset)
        if offset is not None:
            self.expression_offset += offset.expr.to(self.expression_offset)
            self.jaw_offset += offset.jaw.to(self.jaw_offset)
        self.offset_scale = torch.full_like(self.offset_scale, scale)
        self.forget_offset()

    def take_offset(self, other: TrackedHead) -> None:
        """Has the offset of another head of the same model from now on."""
        for name in OFFSET_BUFFERS:
            setattr(self, name, getattr(other, name).detach().clone().to(self.shape.device))
        self.forget_offset()

    def forget_offset(self) -> None:
        """To be called after a buffer of the offset was written: their sum is computed once and kept."""
        self._offset_known = False

    def under_offset(self, pose: FlamePose) -> FlamePose:
        """What the head shows in poses of a motion; the same object where there is no offset."""
        return pose if self.offset is None else self.offset.posed(pose)

    # -- posing --

    def vertices(self, timesteps: Int[Tensor, " times"]) -> Float[Tensor, "times vertices 3"]:
        """Posed vertices, metres; differentiable in the pose parameters."""
        pose = FlamePose(**{name: self.pose[name][timesteps] for name in POSE_PARAMETERS})
        return self._shaped_head().posed(self.under_offset(pose))

    def vertices_at(self, time: float) -> Float[Tensor, "vertices 3"]:
        """Posed vertices at a normalised time, clamped to [0, 1]."""
        return self.vertices_of(self.pose_at(time))

    def vertices_of(self, pose: FlamePose) -> Float[Tensor, "vertices 3"]:
        """Posed vertices of one frame of a motion, metres; differentiable."""
        return self._shaped_head().posed(self.under_offset(pose))[0]

    def pose_at(self, time: float) -> FlamePose:
        """Expression and pose (one frame) at a normalised time, clamped to [0, 1]."""
        position = min(max(time, 0.0), 1.0) * (self.num_timesteps - 1)
        nearest = round(position)
        if abs(position - nearest) <= _ON_TIMESTEP:
            return FlamePose(**{name: self.pose[name][nearest : nearest + 1] for name in POSE_PARAMETERS})
        before = int(position)
        pair = {name: self.pose[name][before : before + 2] for name in POSE_PARAMETERS}
        return FlameMotion(shape=self.shape, static_offset=None, **pair).interpolate(position - before)

    def frames_at(self, time: float) -> TriangleFrames:
        """The triangle frames at a normalised time."""
        return triangle_frames(self.vertices_at(time), self.faces)

    def frames_of(self, pose: FlamePose) -> TriangleFrames:
        """The triangle frames of one pose (of a single frame); differentiable."""
        return triangle_frames(self.vertices_of(pose), self.faces)

    def rest_frames(self) -> TriangleFrames:
        """The triangle frames of the head at rest."""
        with torch.no_grad():
            return triangle_frames(self.canonical_vertices(), self.faces)

    def canonical_vertices(self) -> Float[Tensor, "vertices 3"]:
        """The head at rest: this identity, neutral expression, all joints straight, at the origin."""
        zeros = {name: torch.zeros_like(self.pose[name][:1]) for name in POSE_PARAMETERS}
        return self._shaped_head().posed(FlamePose(**zeros))[0]

    @torch.no_grad()
    def center(self, tracked: FlameMotion, timesteps: Int[Tensor, " some"]) -> None:
        """Subtracts the mean difference from `tracked` over all `timesteps`: the part that the corrections have in common."""
        rows = timesteps.to(self.shape.device)
        for name in POSE_PARAMETERS:
            pose = self.pose[name]
            pose.data[rows] -= (pose[rows] - getattr(tracked, name).to(pose)[rows]).mean(dim=0)

    def forget_shape(self) -> None:
        """To be called after `shape` or `static_offset` were written: the shaped head is computed once and kept."""
        self._shaped = None
        self.forget_offset()

    def _shaped_head(self) -> ShapedHead:
        if self._shaped is None:
            with torch.no_grad():
                self._shaped = self.flame.shaped(self.shape, self.static_offset)
        return self._shaped

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        super()._apply(fn, recurse)
        self.flame._apply(fn)
        self.forget_shape()
        return self


def check_motion(flame: FlameModel, motion: FlameMotion, identity: bool = True) -> None:
    """Raises a ValueError when the parameters belong to another head model than `flame`."""
    found, expected = [], []
    if motion.expr.shape[-1] > flame.num_expr:
        found.append(f"{motion.expr.shape[-1]} expression coefficients")
        expected.append(f"at most {flame.num_expr}")
    if identity and motion.shape.shape[-1] > flame.num_shape:
        found.append(f"{motion.shape.shape[-1]} shape coefficients")
        expected.append(f"at most {flame.num_shape}")
    if identity and motion.static_offset is not None and len(motion.static_offset) != flame.num_vertices:
        found.append(f"a static offset of {len(motion.static_offset)} vertices")
        expected.append(f"{flame.num_vertices}")
    if found:
        lacks_teeth = identity and motion.needs_teeth and flame.num_vertices == FLAME_VERTICES
        raise UserError(
            f"The tracked parameters do not fit the head model: found {', '.join(found)}; expected {', '.join(expected)}. "
            + (f"{NEEDS_TEETH} " if lacks_teeth else "")
            + "They were tracked with another head. For a FLAME capture (NeRSemble, VHAP) pass `nersemble-data --flame-model "
            "FILE` or set FLAME_MODEL_PATH; for a capture made by `edit3dgs capture` leave both unset (the embedded open head)."
        )
