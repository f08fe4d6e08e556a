"""One round of editing inside a training run: render a batch, edit it, store it, and train on it from then
on.

The diffusion model and everything here stays outside of the pipeline's modules, and so outside of its
checkpoints.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from nerfstudio.utils import writer
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from edit3dgs_ns.datamanager import AvatarDatamanager
from edit3dgs_ns.editing.editor import Editor, EditRequest
from edit3dgs_ns.editing.schedule import Batch
from edit3dgs_ns.editing.store import EditKey, EditStore, write_atomically
from edit3dgs_ns.model import RiggedSplatfactoModel

HISTORY_FILE = "edit_history.json"
_WIDEST_GRID = 2048


@dataclass(frozen=True)
class RequestOptions:
    """What all requests of a run share."""

    prompt: str
    shared_noise: bool = True
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    steps: int | None = None


@dataclass
class History:
    """What a run has edited, kept as a file in its folder."""

    path: Path
    prompt: str
    rounds_planned: int
    base_steps: int
    editor: dict[str, Any]
    batches: list[dict[str, Any]] = field(default_factory=list)
    finished: bool = False

    def read_batches(self, other: Path) -> None:
        """Go on with the history of the run that is resumed."""
        if other.is_file():
            batches = json.loads(other.read_text(encoding="utf-8")).get("batches", [])
            self.batches = [b for b in batches if isinstance(b, dict) and isinstance(b.get("round"), int)]

    def add(self, batch: dict[str, Any]) -> None:
        """A round is done; an earlier record of the same round is replaced."""
        self.batches = sorted(
            [b for b in self.batches if b["round"] != batch["round"]] + [batch], key=lambda b: b["round"]
        )
        self.save()

    def save(self) -> None:
        """Write the file."""
        content = {
            "prompt": self.prompt,
            "rounds": len(self.batches),
            "rounds_planned": self.rounds_planned,
            "edited_images": sum(len(b["views"]) for b in self.batches),
            "distinct_images": len({view for b in self.batches for view in b["views"]}),
            "base_steps": self.base_steps,
            "finished": self.finished,
            "seconds": round(sum(b.get("seconds", 0.0) for b in self.batches), 2),
            "unet_evaluations": sum(b.get("unet_evaluations", 0) for b in self.batches),
            "editor": self.editor,
            "batches": self.batches,
        }
        write_atomically(self.path, (json.dumps(content, indent=1) + "\n").encode())


class EditRounds:
    """Does the rounds of one training run.

    Args:
        datamanager: gives the views and takes the edits.
        model: renders the current avatar.
        editor: edits.
        options: what all requests share.
        store: the edits on disk; what is there already is not edited again.
        history: the run's record.
        rounds: rounds in all, for the progress bar.
        train_on: train on edited images only, or on all images, edited or not.
    """

    def __init__(
        self,
        datamanager: AvatarDatamanager,
        model: RiggedSplatfactoModel,
        editor: Editor,
        options: RequestOptions,
        store: EditStore,
        history: History,
        *,
        rounds: int,
        train_on: Literal["edited", "mixed"] = "edited",
    ):
        self.datamanager, self.model, self.editor = datamanager, model, editor
        self.options, self.store, self.history = options, store, history
        self.rounds, self.train_on = rounds, train_on
        self._clock = RoundClock(rounds)

    def run(self, batch: Batch, step: int) -> None:
        """Edit what is not in the store yet, then swap the whole batch in for training."""
        missing = [view for view in batch.views if EditKey(batch.round, view) not in self.store]
        if missing:
            self._clock.begin(batch.round)
            self._edit(batch, missing, step)
        else:
            CONSOLE.log(f"Edit round {batch.round + 1}/{self.rounds}: taken from {self.store.folder}")
        self.swap_in(batch.views, before_round=batch.round + 1)
        if missing:
            self._show(batch, step)

    def swap_in(self, views: Sequence[int], before_round: int) -> None:
        """Train on the newest edits of these views, of the rounds before `before_round`."""
        latest = self.store.latest(before_round)
        for view in views:
            if view in latest:
                self.datamanager.replace_image(view, torch.from_numpy(self.store.get(latest[view]).copy()))
        replaced = self.datamanager.replaced_indices()
        if self.train_on == "edited" and replaced:
            self.datamanager.restrict_to(replaced)

    # -- editing ---------------------------------------------------------------------------------------------

    def _edit(self, batch: Batch, views: Sequence[int], step: int) -> None:
        started = time.perf_counter()
        evaluations, change = 0, []
        with _progress_bar() as progress:
            bar = RoundBar(progress, self._clock, batch, len(views))
            for group in self._groups_of_one_size(views):
                request = self.request(batch, group)
                keep = self._keeper(batch, request, step)
                result = self.editor.edit(request, progress=bar.update, finished=keep)
                for position, image in enumerate(result.images):
                    keep(position, image)
                bar.finish(len(group))
                evaluations += result.unet_evaluations
                change.append(np.abs(result.images - request.originals).mean())
        self.history.add(
            {
                "round": batch.round,
                "step": step,
                "timestep": batch.timestep,
                "views": list(batch.views),
                "noise": round(batch.noise, 4),
                "seed": batch.seed,
                "seconds": round(time.perf_counter() - started, 2),
                "unet_evaluations": evaluations,
                "change": round(float(np.mean(change)), 4),
            }
        )

    def _keeper(self, batch: Batch, request: EditRequest, step: int) -> Callable[[int, np.ndarray], None]:
        """Puts a view into the store the first time it is given."""

        def keep(position: int, image: np.ndarray) -> None:
            key = EditKey(batch.round, request.view_ids[position])
            if key not in self.store:
                record = {
                    "timestep": batch.timestep,
                    "step": step,
                    "noise": request.noise,
                    "seed": request.seed,
                }
                self.store.put(key, image, record)

        return keep

    def request(self, batch: Batch, views: Sequence[int]) -> EditRequest:
        """The request for some views of a batch, which share an image size."""
        cameras = self.datamanager.train_camera(views)
        c2w = np.tile(np.eye(4, dtype=np.float32), (len(views), 1, 1))
        c2w[:, :3] = cameras.camera_to_worlds.cpu().numpy()[:, :3]
        originals = torch.stack([self.datamanager.original_image(view) for view in views])
        return EditRequest(
            prompt=self.options.prompt,
            images=np.stack([self.render(view) for view in views]),
            originals=originals.numpy().astype(np.float32) / 255,
            c2w=c2w,
            K=cameras.get_intrinsics_matrices().cpu().numpy().astype(np.float32),
            timestep=batch.timestep,
            view_ids=tuple(views),
            seed=batch.seed,
            shared_noise=self.options.shared_noise,
            noise=batch.noise,
            guidance_scale=self.options.guidance_scale,
            image_guidance_scale=self.options.image_guidance_scale,
            steps=self.options.steps,
        )

    @torch.no_grad()
    def render(self, view: int) -> Float[np.ndarray, "height width 3"]:
        """A training view as the avatar looks now, on white."""
        training = self.model.training
        self.model.eval()
        try:
            rgb = self.model.get_outputs(self.datamanager.train_camera([view]))["rgb"]
        finally:
            self.model.train(training)
        return rgb.clamp(0, 1).float().cpu().numpy()

    def _groups_of_one_size(self, views: Sequence[int]) -> list[list[int]]:
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        cameras = self.datamanager.train_dataset.cameras
        for view in views:
            groups[int(cameras.height[view]), int(cameras.width[view])].append(view)
        return list(groups.values())

    # -- showing ---------------------------------------------------------------------------------------------

    def _show(self, batch: Batch, step: int) -> None:
        """Grids of originals over edits, one for each image size, to the logger and to the run's folder."""
        for number, group in enumerate(self._groups_of_one_size(batch.views)):
            originals = torch.stack([self.datamanager.original_image(view) for view in group])
            edited = torch.stack([self.datamanager.train_image(view) for view in group])
            picture = edit_grid(originals.numpy(), edited.numpy())
            name = f"round_{batch.round:04d}" + (f"_{number}" if number else "")
            folder = self.history.path.parent / "edit_grids"
            folder.mkdir(exist_ok=True)
            Image.fromarray(picture).save(folder / f"{name}.png")
            writer.put_image(
                name="Edits/original over edited",
                image=torch.from_numpy(picture.astype(np.float32) / 255),
                step=step,
            )


def edit_grid(originals: np.ndarray, edited: np.ndarray) -> np.ndarray:
    """One picture: the originals in a row, the edits below. (views, height, width, 3) uint8 each; shrunk if
    very wide."""
    picture = np.concatenate([np.concatenate(list(row), axis=1) for row in (originals, edited)], axis=0)
    if picture.shape[1] > _WIDEST_GRID:
        height = round(picture.shape[0] * _WIDEST_GRID / picture.shape[1])
        picture = np.asarray(
            Image.fromarray(picture).resize((_WIDEST_GRID, height), Image.Resampling.LANCZOS)
        )
    return picture


class RoundClock:
    """Estimates the time left from the rounds that this process has done, fitting in between included."""

    def __init__(self, rounds: int):
        self._rounds = rounds
        self._first: int | None = None
        self._started = 0.0

    def begin(self, number: int) -> None:
        """Round `number` begins."""
        if self._first is None:
            self._first, self._started = number, time.perf_counter()

    def left(self, number: int, share: float) -> str:
        """Time left, `share` of round `number`'s editing being done."""
        done = number - (self._first or 0)
        if done < 1:
            return "time left after the first round"
        per_round = (time.perf_counter() - self._started) / (done + 0.5 * share)
        minutes, seconds = divmod(int(per_round * (self._rounds - number - 0.5 * share)), 60)
        return f"about {minutes}:{seconds:02d} left"


class RoundBar:
    """The progress bar of a round: which round, how many views, the time left."""

    def __init__(self, progress: Progress, clock: RoundClock, batch: Batch, views: int):
        self._progress, self._clock, self._batch, self._views = progress, clock, batch, views
        self._before = 0
        label = f"Edit round {batch.round + 1}/{clock._rounds}, timestep {batch.timestep}"
        self._task: TaskID = progress.add_task(label, total=views, views=f"0/{views} views", left="")

    def update(self, done: int, total: int) -> None:
        """Denoising steps done for the views that are being edited."""
        self._set(self._before + done / total * (self._views - self._before))

    def finish(self, views: int) -> None:
        """These views are edited and stored."""
        self._before += views
        self._set(self._before)

    def _set(self, views: float) -> None:
        left = self._clock.left(self._batch.round, views / self._views)
        self._progress.update(
            self._task, completed=views, views=f"{int(views)}/{self._views} views", left=left
        )


def _progress_bar() -> Progress:
    return Progress(
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[views]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=CONSOLE,
    )
