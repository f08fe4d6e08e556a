"""Puts the viewer's controls of one avatar together: the scene, the panel, the thread that edits, and the clock.

In `ns-viewer` there is no training: edits are ours, in a thread of our own, and end up in the run's history. In `ns-train`
the training edits; the panel shows how far it is, and takes edits of its own once it is done.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

import torch
import viser

from edit3dgs_ns.edit_training.job import standard_options
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.training.model_setup import head_assets
from edit3dgs_ns.viewer.background import BackgroundPanel
from edit3dgs_ns.viewer.camera import Standpoint
from edit3dgs_ns.viewer.edit_panel import EditPanel
from edit3dgs_ns.viewer.editing import Editing
from edit3dgs_ns.viewer.layers import Palette
from edit3dgs_ns.viewer.motions import Motions
from edit3dgs_ns.viewer.panel import AppearancePanel, MovePanel
from edit3dgs_ns.viewer.pose import pose_sliders
from edit3dgs_ns.viewer.scene import ViewerScene
from edit3dgs_ns.viewer.timeline import Timeline

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras
    from nerfstudio.viewer.viewer import Viewer

    from edit3dgs_ns.training.controls import AvatarControls

_MOST_IMAGES = 48
"""Training images that Nerfstudio draws into the scene at start; it decodes and sends each of them first."""
_TICK, _POLL_SECONDS = 1 / 30, 0.5
"""Seconds between two frames at most, and between two updates about a training."""
_REAL, _EMBEDDED = "timbrooks/instruct-pix2pix", "demo"
_MODELS = (_REAL, _EMBEDDED, "demo-flow", "black-forest-labs/FLUX.2-klein-4B")


class ViewerSession:
    """All controls of one avatar in one viewer.

    Args:
        controls: that the viewer has found.
        viewer: Nerfstudio's.
    """

    def __init__(self, controls: AvatarControls, viewer: Viewer):
        self._viewer, pipeline = viewer, viewer.pipeline
        model: Any = pipeline.model
        dataset: Any = pipeline.datamanager.train_dataset
        assets = head_assets(dataset.metadata)
        regions = dict(assets.face_regions)
        head = model.head
        viewer.config.max_num_display_images = min(viewer.config.max_num_display_images, _MOST_IMAGES)
        with torch.no_grad():
            vertices = head.vertices_at(0.0)
        self._standpoint = Standpoint.in_front(dataset.cameras, vertices)
        self.scene = ViewerScene(
            model=model,
            palette=Palette.of(regions, len(head.faces)),
            sliders=pose_sliders(
                head.pose["expr"].detach().cpu(), head.flame.exprdirs.cpu(), assets.expression_names
            ),
            timeline=Timeline(head.num_timesteps),
            backdrop=model.backdrop,
        )
        self._editing = Editing(controls, viewer, self.scene, regions, self.redraw)
        self._build(viewer.viser_server, sorted(regions), assets)
        self._hide_what_does_nothing()
        viewer.viser_server.scene.set_up_direction("+y")
        viewer.viser_server.on_client_connect(self._standpoint.show_to)
        threading.Thread(target=self._tick_forever, name="avatar-clock", daemon=True).start()

    def outputs(self, camera: Cameras, time: float | None) -> dict[str, Any]:
        """Renders the view of the window; see `ViewerOutputs`."""
        return self.scene.outputs(camera, time)

    def redraw(self) -> None:
        """Requests a new image for all clients; returns at once."""
        if self._viewer.ready:
            self._viewer._trigger_rerender()

    def _build(self, server: viser.ViserServer, regions: list[str], head: FlameAssets) -> None:
        standard = standard_options(self._viewer.pipeline.config)
        first = standard.editor.model
        if first == _REAL and head.name == "open-head":
            first = _EMBEDDED  # for synthetic heads; the real model needs a download and photographs
        tabs = server.gui.add_tab_group(order=-1)  # above Nerfstudio's
        with tabs.add_tab("Move", viser.Icon.RUN):
            motions = Motions(self.scene.model, head)
            self._move = MovePanel(server, self.scene, motions, self._viewer.log_filename.parent, self.redraw)
        with tabs.add_tab("Look", viser.Icon.EYE):
            AppearancePanel(server, self.scene, self.redraw)
            BackgroundPanel(server, self.scene, self._viewer.log_filename.parent, self.redraw)
        with tabs.add_tab("Edit", viser.Icon.WAND):
            panel = EditPanel(
                server,
                self._editing,
                list(dict.fromkeys([first, *_MODELS])),
                regions,
                rounds=standard.rounds,
                views=standard.views_per_edit,
                prompt=(standard.model.prompt or "").strip(),
                reference=", ".join(map(str, standard.editor.reference)) or "none",
            )
        self._editing.begin(panel)

    def _hide_what_does_nothing(self) -> None:
        """Hides Nerfstudio's clock (the frame slider replaces it), and its pause button where nothing is trained."""
        self._viewer.control_panel._time_enabled = False
        self._viewer.control_panel._time.set_hidden(True)
        if self._viewer.trainer is None:
            self._viewer.pause_train.visible = False

    def _tick_forever(self) -> None:
        try:
            self._tick_until_stopped()
        except RuntimeError as error:
            # What viser's threads say once its server has been stopped, which nobody tells this thread.
            if "after shutdown" not in str(error):
                raise

    def _tick_until_stopped(self) -> None:
        updated, cameras_hidden = 0.0, False
        while True:
            time.sleep(_TICK)
            if not self._viewer.ready:
                continue
            if self._move.tick():
                self.redraw()
            if time.monotonic() - updated > _POLL_SECONDS:
                updated = time.monotonic()
                self._editing.update_training()
                cameras_hidden = cameras_hidden or self._hide_training_cameras()

    def _hide_training_cameras(self) -> bool:
        """Hides the training cameras, which occlude the head; Nerfstudio's button shows them again. False if not drawn yet."""
        if not hasattr(self._viewer, "train_util"):  # set when all of them have been drawn
            return False
        self._viewer.set_camera_visibility(False)
        self._viewer.toggle_cameravis_button()
        return True
