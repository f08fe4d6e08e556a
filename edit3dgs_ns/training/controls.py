"""The slot of a model that the viewer's controls are put into.

Nerfstudio finds an `AvatarControls` on the model, because it looks through all public attributes of pipeline and model for
`ViewerControl`s, and hands it the viewer. What is shown there is built by the `viewer` package, which registers itself
with `AvatarControls.connect` (see `method_configs/__init__.py`): training knows nothing of it, and ns-render and ns-eval pay
nothing for it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.render_state_machine import RenderStateMachine
from nerfstudio.viewer.viewer_elements import ViewerControl

if TYPE_CHECKING:
    from nerfstudio.viewer.viewer import Viewer


class ViewerOutputs(Protocol):
    """Renders what the viewer's window shows."""

    def outputs(self, camera: Cameras, time: float | None) -> dict[str, Any]:
        """Outputs of a model for one camera, at the viewer's own time or at `time` in [0, 1]."""


class AvatarControls(ViewerControl):
    """The viewer's controls of one avatar; empty until a viewer is there."""

    _builder: ClassVar[Callable[[AvatarControls, Viewer], ViewerOutputs] | None] = None
    _prepare: ClassVar[Callable[[], None] | None] = None

    def __init__(self) -> None:
        self._shown: ViewerOutputs | None = None
        if AvatarControls._prepare is not None:
            AvatarControls._prepare()

    @classmethod
    def connect(
        cls, builder: Callable[[AvatarControls, Viewer], ViewerOutputs], prepare: Callable[[], None]
    ) -> None:
        """Registers what builds the controls when Nerfstudio starts a viewer, and what is called before it can start one."""
        cls._builder, cls._prepare = builder, prepare

    def _setup(self, viewer: Viewer) -> None:
        """Called by Nerfstudio while it builds its viewer."""
        super()._setup(viewer)
        if AvatarControls._builder is not None:
            self._shown = AvatarControls._builder(self, viewer)

    def outputs(self, camera: Cameras) -> dict[str, Any] | None:
        """What the viewer's window shows; None when something other than the viewer asks for a render."""
        if self._shown is None or not isinstance(threading.current_thread(), RenderStateMachine):
            return None
        along_path = self.viewer.render_tab_state.preview_render
        time = float(camera.times[0, 0]) if along_path and camera.times is not None else None
        return self._shown.outputs(camera, time)
