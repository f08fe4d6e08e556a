"""The tab Edit of the viewer's panel: the prompt and its options, the progress, and the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import viser

from edit3dgs_ns.edit_training.expression.described import described_expression
from edit3dgs_ns.edit_training.job import EditJob
from edit3dgs_ns.edit_training.versions import Version
from edit3dgs_ns.viewer.text import image_element, plain, wrapped

_AUTO = "auto: eyes and mouth, if the edit leaves them alone."
_WAITING = "Write what to change, look at a preview, and edit."


class Actions(Protocol):
    """Callbacks of the buttons. Each returns at once: "" if the action has begun, otherwise the reason why it cannot."""

    def preview(self, job: EditJob, client: int) -> str:
        """Edits an image of what this client sees."""
        ...

    def edit(self, job: EditJob) -> str:
        """Edits the avatar."""
        ...

    def pause(self, pause: bool) -> str:
        """Pauses the edit or the training, or resumes it."""
        ...

    def undo(self) -> str:
        """Abandons the current edit, or reverts the last one."""
        ...

    def revert(self, version: int) -> str:
        """Reverts to another version."""
        ...


class EditPanel:
    """Adds its elements to the container that is open.

    Args:
        server: of viser.
        actions: what the buttons do.
        models: diffusion models to choose from; the first is chosen.
        regions: names of parts of the head.
        rounds, views: what the sliders begin with.
        prompt, reference: what the texts begin with.
    """

    def __init__(
        self,
        server: viser.ViserServer,
        actions: Actions,
        models: Sequence[str],
        regions: Sequence[str],
        rounds: int,
        views: int,
        prompt: str = "",
        reference: str = "none",
    ):
        self._actions, gui = actions, server.gui
        parts = f"Separated by commas; none for nothing. Of: {', '.join(regions)}" if regions else None
        self._prompt = gui.add_text("Prompt", prompt, hint='For example: "Make him look older"')
        self._model = gui.add_dropdown("Model", tuple(models), hint="Diffusion model to edit with")
        self._reference = gui.add_text(
            "Reference",
            reference,
            hint="Files of images that the prompt may speak of, separated by commas. For FLUX.2 and Qwen-Image-Edit-Plus.",
        )
        self._guidance = gui.add_number(
            "Guidance", 0.0, min=0.0, max=30.0, step=0.5, hint="Weight of the prompt; 0: the model's own"
        )
        self._image_guidance = gui.add_number(
            "Image guidance",
            0.0,
            min=0.0,
            max=10.0,
            step=0.1,
            hint="Weight of the image; 0: the model's own",
        )
        self._keep = gui.add_text(
            "Keep",
            "auto",
            hint=f"Parts that stay as they are. {_AUTO} {parts or ''}",
        )
        self._only = gui.add_text("Only", "none", hint=f"Parts that alone are edited. {parts or ''}")
        self._rounds = gui.add_slider(
            "Rounds", 1, max(40, rounds), 1, rounds, hint="Batches of views that are edited"
        )
        self._views = gui.add_slider("Views per round", 1, max(16, views), 1, views)
        self._preview = gui.add_button("Preview on this view", icon=viser.Icon.EYE)
        self._edit = gui.add_button("Edit", icon=viser.Icon.WAND)
        self._pause = gui.add_button("Pause editing", icon=viser.Icon.PLAYER_PAUSE, disabled=True)
        self._resume = gui.add_button("Go on", icon=viser.Icon.PLAYER_PLAY, visible=False)
        self._undo = gui.add_button("Undo last edit", icon=viser.Icon.ARROW_BACK_UP)
        self._message = gui.add_markdown(plain(_WAITING))
        self._bar = gui.add_progress_bar(0.0, visible=False)
        self._image = gui.add_markdown("", visible=False)
        self._history = gui.add_markdown("")
        with gui.add_folder("Go to a version", expand_by_default=False):
            self._version = gui.add_number("Version", 0, min=0, step=1)
            go = gui.add_button("Go there", icon=viser.Icon.HISTORY)
        self._preview.on_click(
            lambda event: self._ask(lambda: actions.preview(self.job(), event.client_id or 0))
        )
        self._edit.on_click(lambda _: self._ask(lambda: actions.edit(self.job())))
        self._pause.on_click(lambda _: self._ask(lambda: actions.pause(True)))
        self._resume.on_click(lambda _: self._ask(lambda: actions.pause(False)))
        self._undo.on_click(lambda _: self._ask(actions.undo))
        go.on_click(lambda _: self._ask(lambda: actions.revert(int(self._version.value))))

    def job(self) -> EditJob:
        """Returns the edit that the controls describe."""
        return EditJob(
            prompt=self._prompt.value.strip(),
            model=self._model.value,
            guidance_scale=float(self._guidance.value) or None,
            image_guidance_scale=float(self._image_guidance.value) or None,
            keep=self._keep.value.strip() or "none",
            only=self._only.value.strip() or "none",
            reference=self._reference.value.strip() or "none",
            rounds=int(self._rounds.value),
            views_per_edit=int(self._views.value),
        )

    def show_state(self, busy: bool, editing: bool, paused: bool) -> None:
        """Enables the buttons that can be pressed."""
        self._preview.disabled = self._edit.disabled = busy
        self._pause.visible, self._resume.visible = not paused, paused
        self._pause.disabled = not editing

    def show_message(self, text: str, share: float | None = None) -> None:
        """Shows a message, and a progress bar at `share` in [0, 1] (None: no bar)."""
        content = wrapped(text)
        if content != self._message.content:
            self._message.content = content
        self._bar.visible = share is not None
        if share is not None:
            self._bar.value = round(100 * min(max(share, 0.0), 1.0), 1)

    def show_image(self, image: np.ndarray, caption: str) -> None:
        """Shows an image with a caption below it."""
        self._image.content = f"{image_element(image, caption)}\n\n{plain(caption)}"
        self._image.visible = True

    def show_history(self, versions: Sequence[Version], current: int) -> None:
        """Lists the versions of the run."""
        lines = [
            f"{'**' if version.number == current else ''}{version.number}: "
            f"{plain(version.prompt or 'the avatar as trained')}"
            f"{' (shown)**' if version.number == current else ''}"
            f"{f' ({plain(added)})' if (added := described_expression(version)) else ''}"
            for version in versions
        ]
        self._history.content = "**History**\n\n" + "\n\n".join(lines)

    def _ask(self, action: Callable[[], str]) -> None:
        reason = action()
        if reason:
            self.show_message(reason)
