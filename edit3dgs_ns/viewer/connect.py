"""Connects the viewer's controls to the models of this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edit3dgs_ns.training.controls import AvatarControls, ViewerOutputs

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer


def connect_viewer() -> None:
    """Makes every avatar that Nerfstudio's viewer opens show this project's tabs. Cheap; again is harmless."""
    AvatarControls.connect(_build, _guard)


def _build(controls: AvatarControls, viewer: Viewer) -> ViewerOutputs:
    from edit3dgs_ns.viewer.session import ViewerSession

    return ViewerSession(controls, viewer)


def _guard() -> None:
    from edit3dgs_ns.viewer.guard import guard_viewers

    guard_viewers()
