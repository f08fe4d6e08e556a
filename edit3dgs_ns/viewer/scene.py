"""State of the viewer's window: pose, layers, and the avatar before or after its edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import torch
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.world_splats import Backdrop
from edit3dgs_ns.training.model import RiggedSplatfactoModel
from edit3dgs_ns.viewer.compare import Compare, wiped
from edit3dgs_ns.viewer.layers import CLAY, Palette, draw_colored, draw_mesh
from edit3dgs_ns.viewer.pose import PoseSlider, posed_by_hand
from edit3dgs_ns.viewer.timeline import Timeline

Show = Literal["Splats", "Mesh", "Both", "Regions"]

_TINT = 0.6
"""Share of a region's colour over the avatar's own."""


@dataclass
class ViewerScene:
    """State of the window. Callbacks of the panel write it, render threads read it; plain assignments, so neither waits."""

    model: RiggedSplatfactoModel
    palette: Palette
    sliders: list[PoseSlider]
    timeline: Timeline
    motion: FlameMotion | None = None
    """Another motion than the avatar's own, on the model's device."""
    by_hand: dict[str, float] = field(default_factory=dict)
    """Values of the pose sliders."""
    show: Show = "Splats"
    compare: Compare = "After"
    wipe: float = 0.5
    """Border of Split, as a share of the width."""
    before: RiggedSplatfactoModel | None = None
    """The avatar before its edit; None if there is none."""
    backdrop: Backdrop | None = None
    """The scene around the avatar; None for white."""
    clock: Callable[[], float] = monotonic

    def pose_now(self) -> FlamePose:
        """Returns the pose of the current frame."""
        return self.pose_at(self.timeline.time_at(self.clock()))

    @torch.no_grad()
    def pose_at(self, time: float) -> FlamePose:
        """Returns the pose at a normalised time, t in [0, 1], with the sliders' values added."""
        motion = self.motion
        pose = self.model.head.pose_at(time) if motion is None else motion.interpolate(time)
        return posed_by_hand(pose, self.sliders, dict(self.by_hand))

    @torch.no_grad()
    def outputs(self, camera: Cameras, time: float | None = None) -> dict[str, Any]:
        """Renders a camera; see `RiggedSplatfactoModel.get_outputs`.

        Args:
            camera: one, shape (1,).
            time: normalised, t in [0, 1]; None for the current frame.
        """
        pose = self.pose_now() if time is None else self.pose_at(time)
        before, compare = self.before, self.compare
        if before is None or compare == "After":
            return self._drawn(self.model, camera, pose)
        if compare == "Before":
            return self._drawn(before, camera, pose)
        pair = [self._drawn(model, camera, pose) for model in (before, self.model)]
        return {
            name: wiped(pair[0][name], pair[1][name], self.wipe, line=name == "rgb")
            for name in pair[1]
            if name in pair[0]
        }

    def _drawn(self, model: RiggedSplatfactoModel, camera: Cameras, pose: FlamePose) -> dict[str, Any]:
        clay = torch.tensor(CLAY).expand(len(model.head.faces), 3)
        scene = None if self.backdrop is None else self.backdrop.placed
        if self.show == "Mesh":
            return draw_mesh(model, camera, pose, clay, scene)
        splats: dict[str, Any] = model.get_outputs(camera, pose, scene)
        if self.show == "Both":
            return splats | {"rgb": _mixed(splats, draw_mesh(model, camera, pose, clay, scene), 0.5)}
        if self.show == "Regions":
            tinted = draw_colored(model, camera, pose, self.palette.of_faces, scene)
            return splats | {"rgb": _mixed(splats, tinted, _TINT)}
        return splats


def _mixed(one: dict[str, Any], other: dict[str, Tensor], share: float) -> Tensor:
    rgb: Tensor = one["rgb"]
    return rgb.lerp(other["rgb"], share)
