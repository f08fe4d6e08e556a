"""The way in to an avatar's controls.

Nerfstudio finds an `AvatarControls` on the model, because it looks through all public attributes of pipeline and model for
`ViewerControl`s, and hands it the viewer. Until then it is nothing but a name: ns-render and ns-eval pay nothing for it. The model
asks it for every picture of the viewer's window, and of nothing else.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer_elements import ViewerControl

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer

    from edit3dgs_ns.viewer.desk import Desk


class AvatarControls(ViewerControl):
    """The viewer's controls of one avatar; nothing before a viewer is there."""

    def __init__(self) -> None:
        self._desk: Desk | None = None

    def _setup(self, viewer: Viewer) -> None:
        """Called by Nerfstudio while it builds its viewer."""
        super()._setup(viewer)
        from edit3dgs_ns.viewer.desk import Desk

        self._desk = Desk(self, viewer)

    def outputs(self, camera: Cameras) -> dict[str, Any] | None:
        """What the viewer's window shows, with all that the controls say; None when something else asks for a picture."""
        if self._desk is None or not isinstance(threading.current_thread(), RenderStateMachine):
            return None
        along_path = self.viewer.render_tab_state.preview_render
        place = float(camera.times[0, 0]) if along_path and camera.times is not None else None
        return self._desk.stage.outputs(camera, place)
