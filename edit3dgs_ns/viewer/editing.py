"""Actions of the buttons in the tab Edit, and the messages that the panel shows about them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edit3dgs_ns.capture.images import read_image
from edit3dgs_ns.edit_training.job import EditJob, options_of, standard_options
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.viewer.edit_panel import EditPanel
from edit3dgs_ns.viewer.scene import ViewerScene
from edit3dgs_ns.viewer.worker import Status, Worker

if TYPE_CHECKING:
    from nerfstudio.cameras.cameras import Cameras
    from nerfstudio.viewer.viewer import Viewer

    from edit3dgs_ns.training.controls import AvatarControls

_BUSY = "Wait until what is going on is done, or press Pause or Undo."
_TRAINING = "The training is still at work on the avatar: edit, undo and go back once it is done."
_LARGEST = 1024
"""Longer side of a preview, pixels."""
_REDRAW_EVERY = 0.5
"""Seconds between two images while the avatar is being trained."""


class Editing:
    """Previews and edits of one avatar in one viewer; `edit_panel.Actions`.

    Args:
        controls: that know the visitors' cameras.
        viewer: Nerfstudio's.
        scene: what the window shows.
        regions: faces of every named region of the rig.
        redraw: asks for a new image.
    """

    def __init__(
        self,
        controls: AvatarControls,
        viewer: Viewer,
        scene: ViewerScene,
        regions: dict[str, np.ndarray],
        redraw: Callable[[], None],
    ):
        self._controls, self._viewer, self._scene = controls, viewer, scene
        self._regions, self._redraw = regions, past_visitors(redraw)
        self._pipeline: Any = viewer.pipeline
        self._run = viewer.log_filename.parent
        self._lock = viewer.train_lock or threading.Lock()
        self._worker = Worker(self._report, self._give_way)
        self._editors: dict[tuple[str, tuple[Path, ...]], Any] = {}
        """By model and references."""
        self._drawn = 0.0
        self._grids_shown: set[tuple[str, int]] = set()
        """Names and times of the grids that were shown, or were there before."""
        self._share, self._caution = 0.0, ""
        self._grids: Path | None = None
        """Folder of the last edit's grids of images, one for each round."""
        self._changed = False
        """Whether the worker's current or last job changes the avatar."""

    @property
    def worker(self) -> Worker:
        """The thread."""
        return self._worker

    def begin(self, panel: EditPanel) -> None:
        """Called once the panel is there: finds the avatar from before the edit, for the comparison."""
        self._panel = panel
        new_image(self._run / "edit_grids", self._grids_shown)
        if self._viewer.trainer is None:
            self._worker.revert(self._find_before)
        else:
            own = getattr(self._pipeline, "_editor", None)
            if own is not None:
                used = self._pipeline.config.editor
                self._editors[used.model, used.reference] = own
            self._remember_before()

    # -- the buttons -------------------------------------------------------------------------------------------------

    def preview(self, job: EditJob, client: int) -> str:
        """See `Actions`."""
        if not job.prompt:
            return "Write a prompt first."
        camera = self._camera(client)
        if camera is None:
            return ""
        return "" if self._worker.preview(lambda: self._make_preview(job, camera)) else _BUSY

    def edit(self, job: EditJob) -> str:
        """See `Actions`."""
        if self._training():
            return _TRAINING
        if (shown := getattr(self._pipeline, "plays", None)) is not None:
            return f"This run shows {shown}: edit the avatar in its own run, which reenactment.json in this run's folder names."
        if not job.prompt:
            return "Write a prompt first."
        return "" if self._worker.edit(lambda: self._open_session(job)) else _BUSY

    def pause(self, pause: bool) -> str:
        """See `Actions`."""
        trainer = self._viewer.trainer
        if trainer is not None and self._training():
            trainer.training_state = "paused" if pause else "training"
            return ""
        return "" if self._worker.pause(pause) else "Nothing is being edited."

    def undo(self) -> str:
        """See `Actions`."""
        if self._training():
            return _TRAINING
        return "" if self._worker.revert(lambda: self._go_to(None)) else _BUSY

    def revert(self, version: int) -> str:
        """See `Actions`."""
        if self._training():
            return _TRAINING
        if self._worker.status.state != "idle":
            return _BUSY
        return "" if self._worker.revert(lambda: self._go_to(version)) else _BUSY

    # -- a training that goes on -------------------------------------------------------------------------------------

    def update_training(self) -> None:
        """Called twice a second: shows the progress of the training, and the newest images of an edit."""
        if self._grids is not None:  # also once the edit is over: its last round may have ended with it
            self._show_newest(self._grids)
        if self._worker.status.session is None and self._viewer.trainer is not None:
            self._show_newest(self._run / "edit_grids")
            if self._worker.status.state == "idle":
                self._show_training()

    def _training(self) -> bool:
        trainer = self._viewer.trainer
        return trainer is not None and trainer.training_state != "completed"

    def _show_training(self) -> None:
        trainer: Any = self._viewer.trainer
        schedule = getattr(self._pipeline, "schedule", None)
        paused = trainer.training_state == "paused"
        self._panel.show_state(busy=False, editing=self._training(), paused=paused)
        if schedule is None or not self._training():
            return
        step, total = trainer.step, self._pipeline.total_steps
        if self._scene.before is None and step >= self._pipeline.base_steps:
            self._remember_before()
        message = f"{'Paused' if paused else 'Training'}: step {step} of {total}, round {schedule.round} of {schedule.due_rounds}"
        if judged := getattr(self._pipeline, "judged", ""):
            message = f"{message}. {judged}"
        self._panel.show_message(message, step / max(total, 1))

    def _remember_before(self) -> None:
        from edit3dgs_ns.training.frozen_copy import frozen_avatar

        if getattr(self._pipeline, "base_steps", 1) == 0 or self._viewer.ready:
            with self._lock:
                self._scene.before = frozen_avatar(self._scene.model)

    # -- the work, in the worker's thread ----------------------------------------------------------------------------

    def _make_preview(self, job: EditJob, camera: Cameras) -> str:
        from edit3dgs_ns.viewer.preview import make_preview, preview_request

        standard = standard_options(self._pipeline.config)
        editor = self._editor(job, standard)
        preview = make_preview(
            editor,
            lambda: preview_request(
                self._scene.model, self._regions, camera, self._scene.pose_now(), job, standard.noise_first
            ),
            self._lock,
            lambda done, total: self._panel.show_message("Editing this image ...", done / total),
        )
        both = np.concatenate([preview.render, preview.edited], axis=1)
        self._panel.show_image(both, "Preview: this view, and its edit. The avatar is not touched.")
        return editor.unknown_instruction(job.prompt) or "The preview is done."

    def _open_session(self, job: EditJob) -> Any:
        from edit3dgs_ns.edit_training.session import EditSession

        history = RunHistory(self._run)
        current = history.keep_current()
        standard = standard_options(self._pipeline.config)
        config = options_of(job, standard, self._scene.model, history.checkpoint(current.number))
        self._panel.show_message("Loading the diffusion model ...")
        editor = self._editor(job, config)
        session = EditSession(self._pipeline, job, config, history, editor, self._lock)
        self._scene.before, self._share, self._grids = (
            session.before,
            0.0,
            Path(session.folder) / "edit_grids",
        )
        new_image(self._grids, self._grids_shown)  # of an earlier attempt at the same edit
        warning = editor.unknown_instruction(job.prompt)
        self._caution = "" if warning is None else f" {warning.splitlines()[0]}"
        editor.watcher = self._watch
        return session

    def _go_to(self, number: int | None) -> str:
        from edit3dgs_ns.edit_training.session import show_version

        history = RunHistory(self._run)
        version = history.undo() if number is None else history.revert_to(number)
        show_version(self._pipeline, history, version.number, self._lock)
        self._find_before()
        return f"The avatar is version {version.number} again: {version.prompt or 'as it was trained'}."

    def _find_before(self) -> str:
        """Loads the version that the shown one is an edit of, for the comparison."""
        from edit3dgs_ns.edit_training.session import version_avatar
        from edit3dgs_ns.splats.checkpoints import find_checkpoint, model_state, read_checkpoint
        from edit3dgs_ns.training.frozen_copy import frozen_avatar

        history = RunHistory(self._run)
        current, source = history.current, getattr(self._pipeline.config, "avatar", None)
        self._scene.before = None
        if current.parent is not None:
            self._scene.before = version_avatar(self._pipeline, history, current.parent)
        elif current.prompt is not None and source is not None:
            with contextlib.suppress(FileNotFoundError):  # a run from before there were histories
                path = find_checkpoint(source, "--pipeline.avatar", "a run")
                state = model_state(read_checkpoint(path, "--pipeline.avatar"))
                self._scene.before = frozen_avatar(self._scene.model, state)
        return ""

    def _editor(self, job: EditJob, config: Any) -> Any:
        """The diffusion model, loaded once for this process."""
        from edit3dgs_ns.edit_training.checks import check_editor, load_editor_of
        from edit3dgs_ns.editing.thread_safe_editor import ThreadSafeEditor

        key = job.model, job.references
        if key not in self._editors:
            options = replace(config.editor, model=job.model, reference=job.references)
            check_editor(options)
            loaded = load_editor_of(options, self._pipeline.device, self._panel.show_message)
            self._editors[key] = ThreadSafeEditor(loaded)
        return self._editors[key]

    def _camera(self, client: int) -> Cameras | None:
        """Returns the camera of a visitor, with the aspect ratio and size of the capture's images; None for one who has left."""
        cameras = self._pipeline.datamanager.train_dataset.cameras
        width, height = int(cameras.width[0]), int(cameras.height[0])
        shrink = min(1.0, _LARGEST / max(width, height))
        try:
            camera = self._controls.get_camera(round(height * shrink), round(width * shrink), client)
        except KeyError:
            return None
        return None if camera is None else camera.to(self._pipeline.device)

    # -- messages ----------------------------------------------------------------------------------------------------

    def _watch(self, done: int, total: int) -> None:
        """The diffusion model has done a step."""
        session = self._worker.status.session
        if session is not None:
            message = f"Round {session.rounds_done + 1} of {session.rounds}: {100 * done // total} % edited"
            self._panel.show_message(message, self._share)

    def _report(self, status: Status) -> None:
        session = status.session
        busy = status.state != "idle"
        if busy:
            self._changed = status.state != "previewing"
        self._panel.show_state(
            busy=busy, editing=status.state in ("editing", "paused"), paused=status.state == "paused"
        )
        if session is not None:
            self._share = session.step / max(session.total_steps, 1)
            message = f"{'Paused' if status.state == 'paused' else 'Editing'}: step {session.step} of {session.total_steps}, "
            self._panel.show_message(
                f"{message}round {session.rounds_done} of {session.rounds}. {session.judged}{self._caution}".rstrip(),
                self._share,
            )
            self._redraw_sometimes()
        elif not busy:
            if status.message:
                self._panel.show_message(status.message)
            self._show_history()
            if self._changed:  # an image is drawn small first: one that stays must not flicker
                self._redraw()

    def _show_history(self) -> None:
        with contextlib.suppress(FileNotFoundError):  # a training that has not saved anything yet
            history = RunHistory(self._run)
            self._panel.show_history(history.versions, history.current.number)

    def _show_newest(self, folder: Path) -> None:
        path = new_image(folder, self._grids_shown)
        if path is not None:
            image, _ = read_image(path)
            self._panel.show_image(image, "The latest round: before (above) and after.")

    def _redraw_sometimes(self) -> None:
        if time.monotonic() - self._drawn > _REDRAW_EVERY:
            self._drawn = time.monotonic()
            self._redraw()

    def _give_way(self) -> None:
        """Between two steps: let render threads take the lock, and the visitor move without stutter."""
        time.sleep(0.005)
        # Not negative: the clock may have been set back since.
        while 0 <= time.time() - self._viewer.last_move_time < 0.1:
            time.sleep(0.02)


def past_visitors(redraw: Callable[[], None]) -> Callable[[], None]:
    """`redraw`, for threads that work on an edit: visitors who come or go meanwhile do not end it.

    Nerfstudio goes through the clients of viser and looks each up among its own, which it hears of a little later.
    """

    def redraw_for_those_who_stay() -> None:
        with contextlib.suppress(KeyError, RuntimeError):
            redraw()

    return redraw_for_those_who_stay


def new_image(folder: Path, shown: set[tuple[str, int]]) -> Path | None:
    """Returns the PNG of a folder that comes last by its name, unless it is among those shown, which all are from now on.

    By name, not by time: clocks are set back.
    """
    with contextlib.suppress(FileNotFoundError):
        images = sorted(folder.glob("*.png"))
        stamps = [(str(path), path.stat().st_mtime_ns) for path in images]
        new = [path for path, stamp in zip(images, stamps, strict=True) if stamp not in shown]
        shown.update(stamps)
        return new[-1] if new else None
    return None
