"""The folder Background in the viewer's tab Look: a scene around the avatar, placed by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import viser

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.backgrounds import OPTION, read_background, scene_name
from edit3dgs_ns.runs.placement import OPTION as TRANSFORM_OPTION
from edit3dgs_ns.runs.placement import write_placement
from edit3dgs_ns.runs.scene_options import SceneOptions
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.world_splats import Backdrop
from edit3dgs_ns.viewer.scene import ViewerScene
from edit3dgs_ns.viewer.text import wrapped


class BackgroundPanel:
    """Adds its elements to the container that is open. Callbacks write a value and ask for a new image; a thread reads files.

    Args:
        server: of viser.
        scene: what the controls write to; its background, if it has one, is where they begin.
        run: the avatar's run, where placements are saved.
        redraw: asks for a new image; returns at once.
    """

    def __init__(self, server: viser.ViserServer, scene: ViewerScene, run: Path, redraw: Callable[[], None]):
        self._scene, self._run, self._redraw = scene, run, redraw
        self._backdrop: Backdrop | None = scene.backdrop
        self._gui = server.gui
        with server.gui.add_folder("Background", expand_by_default=scene.backdrop is not None):
            self._from = self._gui.add_text(
                "From",
                "" if scene.backdrop is None else scene.backdrop.source,
                hint="config.yml of a run of splatfacto, or a splat (.ply)",
            )
            add = self._gui.add_button("Add this background", icon=viser.Icon.FILE_IMPORT)
            self._show = self._gui.add_checkbox("Show", True)
            self._add_placement()
            self._save = self._gui.add_button("Save where it stands", icon=viser.Icon.DEVICE_FLOPPY)
            self._said = self._gui.add_markdown("", visible=False)
        self._set_visible(scene.backdrop is not None)
        add.on_click(lambda _: self._start_adding())
        self._save.on_click(lambda _: self.save())

    def add(self, place: str) -> None:
        """Read a background and show it, where the controls say.

        Args:
            place: what `--background` takes.

        Raises:
            FileNotFoundError, ValueError: there is none.
        """
        if not place.strip():
            raise UserError("Give the config.yml of a run of splatfacto, or a splat (.ply).")
        backdrop = read_background(SceneOptions(Path(place.strip())))
        assert backdrop is not None
        self._backdrop = backdrop.at(self._placement()).to(self._scene.model.device)
        self._set_visible(True)
        self._refresh()

    def save(self) -> None:
        """Write the placement, and say how other commands take it."""
        backdrop = self._backdrop
        assert backdrop is not None, "the button is not there without one"
        path = self._run / f"background_{scene_name(Path(backdrop.source))}.json"
        write_placement(path, backdrop.head_from_scene)
        self._say(f"Saved. For other commands: {OPTION} {backdrop.source} {TRANSFORM_OPTION} {path}")

    def _start_adding(self) -> None:
        self._say("Reading ...")
        threading.Thread(target=self._try_to_add, name="reading-background", daemon=True).start()

    def _try_to_add(self) -> None:
        try:
            self.add(self._from.value)
        except (ValueError, OSError) as error:
            self._say(str(error))
        else:
            self._said.visible = False

    def _add_placement(self) -> None:
        begin = Similarity() if self._backdrop is None else self._backdrop.head_from_scene
        x, y, z = begin.translation.tolist()
        self._translation = self._gui.add_vector3(
            "Place", (x, y, z), step=0.01, hint="Metres: to the viewer's right, up, forward out of the face"
        )
        self._rotation = self._gui.add_vector3(
            "Turn",
            begin.degrees,
            step=1.0,
            hint="Degrees about x, then y, then z. Nerfstudio's scenes have z up: -90 about x puts them upright",
        )
        self._scale = self._gui.add_number("Size", begin.scale, min=1e-4, step=0.01, hint="Scale")
        for handle in (self._show, self._translation, self._rotation, self._scale):
            handle.on_update(lambda _: self._moved())  # type: ignore[attr-defined]

    def _placement(self) -> Similarity:
        return Similarity.from_parts(
            self._translation.value, self._rotation.value, max(float(self._scale.value), 1e-4)
        )

    def _moved(self) -> None:
        if self._backdrop is not None:
            self._backdrop = self._backdrop.at(self._placement())
            self._refresh()

    def _refresh(self) -> None:
        self._scene.backdrop = self._backdrop if self._show.value else None
        self._redraw()

    def _set_visible(self, visible: bool) -> None:
        handles: tuple[Any, ...] = (self._show, self._translation, self._rotation, self._scale, self._save)
        for handle in handles:
            handle.visible = visible

    def _say(self, text: str) -> None:
        self._said.content, self._said.visible = wrapped(text), True
