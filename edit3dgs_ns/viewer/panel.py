"""The tabs Move and Look of the viewer's panel. Callbacks write a value and ask for a new image, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import viser

from edit3dgs_ns.viewer.compare import Compare
from edit3dgs_ns.viewer.motion_panel import MotionPanel
from edit3dgs_ns.viewer.motions import Motions
from edit3dgs_ns.viewer.scene import Show, ViewerScene
from edit3dgs_ns.viewer.text import plain


class MovePanel:
    """Frame slider, play and pause, speed, motion, and the sliders that pose the head by hand.

    Args:
        server: of viser; elements are added to the container that is open.
        scene: what the controls write to.
        motions: the choices.
        run: the avatar's run, where uploaded videos are kept.
        redraw: asks for a new image; returns at once.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        scene: ViewerScene,
        motions: Motions,
        run: Path,
        redraw: Callable[[], None],
    ):
        self._gui, self._scene, self._motions, self._redraw = server.gui, scene, motions, redraw
        self._box = server.gui.add_folder("Time")
        self._frame = self._frame_slider()
        self._play = server.gui.add_button("Play", icon=viser.Icon.PLAYER_PLAY)
        self._pause = server.gui.add_button("Pause", icon=viser.Icon.PLAYER_PAUSE, visible=False)
        self._play.on_click(lambda _: self._set_playing(True))
        self._pause.on_click(lambda _: self._set_playing(False))
        speed = server.gui.add_slider(
            "Speed", 0.1, 4.0, 0.1, 1.0, hint="1: as it was recorded, or 25 frames a second"
        )
        speed.on_update(lambda _: scene.timeline.set_speed(float(speed.value), scene.clock()))
        self.motion = MotionPanel(server, motions, run, self._show_motion)
        self._sliders: dict[str, viser.GuiInputHandle[float]] = {}
        with server.gui.add_folder("Pose by hand"):
            self._add_sliders()

    def tick(self) -> bool:
        """Moves the slider along while playing. Returns True if there is a new frame to draw."""
        timeline = self._scene.timeline
        frame = timeline.frame_at(self._scene.clock())
        if not timeline.playing or frame == self._frame.value:
            return False
        self._frame.value = frame
        return True

    def _frame_slider(self) -> Any:
        frames = self._scene.timeline.frames
        with self._box:
            slider = self._gui.add_slider(
                "Frame", 0, max(frames - 1, 1), 1, 0, disabled=frames < 2, hint="Frame of the motion", order=0
            )

        def moved(event: Any) -> None:
            if event.client is not None:  # not when `tick` moves it
                self._scene.timeline.seek(int(slider.value), self._scene.clock())
                self._redraw()

        slider.on_update(moved)
        return slider

    def _set_playing(self, playing: bool) -> None:
        timeline, now = self._scene.timeline, self._scene.clock()
        timeline.play(now) if playing else timeline.pause(now)
        self._play.visible, self._pause.visible = not playing, playing

    def _show_motion(self, name: str) -> None:
        scene = self._scene
        motion, frames = self._motions.get(name)
        scene.motion = motion
        scene.timeline.set_frames(frames, scene.clock(), self._motions.fps(name))
        self._frame.remove()  # a slider's end cannot be moved
        self._frame = self._frame_slider()
        self._redraw()

    # -- pose by hand ------------------------------------------------------------------------------------------------

    def _add_sliders(self) -> None:
        reset = self._gui.add_button("Reset", icon=viser.Icon.ARROW_BACK_UP)
        for spec in self._scene.sliders:
            handle = self._gui.add_slider(
                spec.label, float(spec.low), float(spec.high), spec.step, 0.0, hint=spec.hint
            )
            handle.on_update(self._writer(spec.key, handle))
            self._sliders[spec.key] = handle

        def cleared(_: Any) -> None:
            self._scene.by_hand.clear()
            for handle in self._sliders.values():
                handle.value = 0.0
            self._redraw()

        reset.on_click(cleared)

    def _writer(self, key: str, handle: Any) -> Callable[[Any], None]:
        def write(_: Any) -> None:
            self._scene.by_hand[key] = float(handle.value)
            self._redraw()

        return write


class AppearancePanel:
    """Controls of the display: splats, mesh, both or regions; after, before or a split with a wipe."""

    def __init__(self, server: viser.ViserServer, scene: ViewerScene, redraw: Callable[[], None]):
        self._scene, self._redraw = scene, redraw
        gui = server.gui
        show = gui.add_dropdown(
            "Show", get_args(Show), hint="Splats are the avatar; the mesh is what moves it"
        )
        self._legend = gui.add_markdown(_legend(scene), visible=False)
        self._compare = gui.add_dropdown(
            "Compare", get_args(Compare), hint="With the avatar before its last edit"
        )
        self._wipe = gui.add_slider("Wipe", 0.0, 1.0, 0.01, scene.wipe, visible=False, hint="Before | after")
        self._nothing = gui.add_markdown("There is no edit to compare with yet.", visible=False)

        def shown(_: Any) -> None:
            scene.show = show.value
            self._legend.visible = show.value == "Regions"
            redraw()

        def wiped(_: Any) -> None:
            scene.wipe = float(self._wipe.value)
            redraw()

        show.on_update(shown)
        self._compare.on_update(lambda _: self._compared())
        self._wipe.on_update(wiped)

    def compare(self, how: Compare) -> None:
        """Sets the control `Compare`."""
        self._compare.value = how

    def _compared(self) -> None:
        self._scene.compare = self._compare.value
        self._wipe.visible = self._compare.value == "Split"
        self._nothing.visible = self._compare.value != "After" and self._scene.before is None
        self._redraw()


def _legend(scene: ViewerScene) -> str:
    rows = []
    for name, (red, green, blue) in scene.palette.colors.items():
        color = "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))
        rows.append(f'<span style={{{{color: "{color}"}}}}>■</span> {plain(name)}')
    return " &nbsp; ".join(rows) if rows else "This head model has no named regions."
