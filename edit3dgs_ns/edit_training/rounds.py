"""Rounds of editing inside a training run: render a batch, edit it, store it, and train on it from then on.

Rounds that are edited together start from renders of the same avatar and are in flight at once, as far as the editor takes several
requests and none of them has to wait for another: those with anchors follow the first round, and all follow what the first edits
decide of `--pipeline.editor.keep auto`. Their requests are made one after the other, each while the editor works on those before.

The diffusion model and everything here stays outside of the pipeline's modules, and so outside of its
checkpoints.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from nerfstudio.utils.rich_utils import CONSOLE
from PIL import Image
from rich.markup import escape

from edit3dgs_ns.console import progress_bars
from edit3dgs_ns.edit_training.history import History
from edit3dgs_ns.edit_training.in_flight import InFlight
from edit3dgs_ns.edit_training.judged_edits import Judged, JudgedEdits, left_out_text
from edit3dgs_ns.edit_training.keep_decision import KeepDecision
from edit3dgs_ns.edit_training.peak_memory import peak_memory_gb
from edit3dgs_ns.edit_training.progress import RoundBar, RoundClock, edit_grid
from edit3dgs_ns.edit_training.requests import RequestMaker
from edit3dgs_ns.editing.agreement.key_views import order_around_head
from edit3dgs_ns.editing.convergence import ROUNDS_REQUIRED, corrections, has_converged
from edit3dgs_ns.editing.editor import Editor, EditRequest, requests_at_once
from edit3dgs_ns.editing.schedule import Batch
from edit3dgs_ns.editing.store import EditKey, EditStore
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.training.datamanager import AvatarDatamanager


class EditRounds:
    """Does the rounds of one training run.

    Args:
        datamanager: gives the views and takes the edits.
        requests: says what is to be edited, and how.
        editor: edits.
        store: the edits on disk; what is there already is not edited again.
        history: the run's record.
        rounds: rounds in all, for the progress bar.
        anchors: how many views of the first round are edited along in every later one.
        train_on: train on edited images only, or on all images, edited or not.
        judge: whether edited views are judged before they are stored.
        retries: how often a refused view is edited again before it is left out.
        decision: whether eyes and mouth are kept, where that is to be decided.
    """

    def __init__(
        self,
        datamanager: AvatarDatamanager,
        requests: RequestMaker,
        editor: Editor,
        store: EditStore,
        history: History,
        *,
        rounds: int,
        anchors: int = 0,
        train_on: Literal["edited", "mixed"] = "edited",
        judge: bool = True,
        retries: int = 2,
        decision: KeepDecision | None = None,
    ):
        self.datamanager, self.requests, self.editor = datamanager, requests, editor
        self.store, self.history = store, history
        self.rounds, self.anchors, self.train_on = rounds, anchors, train_on
        self.judge, self.retries, self.decision = judge, retries, decision
        self._clock = RoundClock(rounds)
        self._avatar, self._record = threading.Lock(), threading.Lock()
        """Held while a thread draws the avatar, and while it writes the history."""
        self._last = 0.0
        """When the last round was recorded, or the first of those in flight was begun."""

    def run(self, batches: Sequence[Batch], step: int) -> None:
        """Edit what is not in the store yet, then swap all of these batches in for training.

        Args:
            batches: rounds that are edited together, in their order.
            step: the training step before which they are.
        """
        self._last = time.perf_counter()
        missing = {batch: views for batch in batches if (views := self._missing(batch))}
        for batch in batches:
            if batch not in missing:
                CONSOLE.log(f"Edit round {batch.round + 1}/{self.rounds}: taken from {self.store.folder}")
        if missing:
            self._clock.begin(next(iter(missing)).round)
            self._edit(missing, step)
        for batch in batches:
            # A run that was killed right after its last edit of the round has not recorded it.
            unrecorded = not self.history.has(batch.round)
            if unrecorded:
                self._end_round(batch, Judged(), step)
            self.swap_in(batch.views, before_round=batch.round + 1)
            if batch in missing or unrecorded:
                self._show(batch, step)

    def _missing(self, batch: Batch) -> list[int]:
        """The views of a batch that are to be edited."""
        without = self.history.left_out(batch.round)
        missing = [
            view
            for view in batch.views
            if view not in without and EditKey(batch.round, view) not in self.store
        ]
        return list(batch.views) if missing and self.editor.views_depend else missing

    def converged(self, rounds: int, threshold: float) -> bool:
        """Whether the edits of the last rounds changed next to nothing (see `editing.convergence`); logs and records it if so.

        What was measured is kept with every edit, so that a resumed run decides the same.
        """
        values = [
            self._mean_of("correction", number) for number in range(max(rounds - ROUNDS_REQUIRED, 0), rounds)
        ]
        if not has_converged(values, threshold):
            return False
        self.history.converged_after = rounds
        self.history.save()
        CONSOLE.log(
            f"Converged after {rounds} of at most {self.rounds} rounds: the last two changed the avatar's renders by "
            f"{values[-2]:.4f} and {values[-1]:.4f}, less than {threshold:g}. On to the final steps.",
            highlight=False,
        )
        return True

    def _mean_of(self, what: str, number: int) -> float | None:
        """The mean of a measure over all views of a round, from their records; None where one of them has none."""
        of_round = [self.store.record(key) for key in self._edits_of(number)]
        found = [float(record[what]) for record in of_round if what in record]
        return round(float(np.mean(found)), 5) if of_round and len(found) == len(of_round) else None

    def swap_in(self, views: Sequence[int], before_round: int) -> None:
        """Train on the newest edits of these views, of the rounds before `before_round`."""
        latest = self.store.latest(before_round)
        for view in views:
            if view in latest:
                # A function: the images stay on disk, and in memory only as far as there is room.
                self.datamanager.replace_image(view, partial(self.store.get, latest[view]))
        replaced = self.datamanager.replaced_indices()
        if self.train_on == "edited" and replaced:
            self.datamanager.restrict_to(replaced)

    # -- editing ---------------------------------------------------------------------------------------------

    def _edit(self, missing: Mapping[Batch, Sequence[int]], step: int) -> None:
        """Edits views of rounds that are edited together, and records them.

        Raises:
            UserError: no edit was good, and there is nothing else to train on.
        """
        judged = {batch: Judged() for batch in missing}
        # One more than the editor takes has its request ready when another one ends.
        flight = InFlight(requests_at_once(self.editor) + 1)
        with progress_bars() as progress:
            bar = RoundBar(progress, self._clock, {batch: len(views) for batch, views in missing.items()})
            for together in self._independent(list(missing)):
                flight.run(
                    [
                        partial(self._edit_batch, batch, missing[batch], step, judged[batch], bar, flight)
                        for batch in together
                    ]
                )
        if not self.store.edits():
            texts = [self._left_out_text(batch, judged[batch]) for batch in missing]
            raise UserError(
                "\n".join(filter(None, texts))
                + "\nNothing is left to train on. To train on such images all the same: --pipeline.judge False."
            )
        for batch in missing:
            if not self._edits_of(batch.round):
                self._end_round(batch, judged[batch], step)

    def _independent(self, batches: Sequence[Batch]) -> Iterator[Sequence[Batch]]:
        """Splits rounds into groups within which none waits for another; each group is asked for once those before are done."""
        waiting = list(batches)
        while waiting:
            anchoring = self.anchors > 0 and waiting[0].round == 0
            first = 1 if anchoring or (self.decision is not None and self.decision.is_open) else len(waiting)
            yield waiting[:first]
            waiting = waiting[first:]

    def _edit_batch(
        self, batch: Batch, views: Sequence[int], step: int, judged: Judged, bar: RoundBar, flight: InFlight
    ) -> None:
        """Edits views of one round, stores them, and records the round if any was good. May run in a thread of its own."""

        def make(batch: Batch, views: Sequence[int], anchors: Any = None) -> EditRequest:
            flight.check()
            with self._avatar:
                return self.requests.make(batch, views, anchors)

        def told(done: int, total: int) -> None:
            flight.check()
            bar.update(batch, done, total)

        edits = JudgedEdits(
            self.editor,
            make,
            lambda request, position, image, extra: self._put(batch, request, position, image, step, extra),
            lambda view: self.store.discard(EditKey(batch.round, view)),
            judge=self.judge,
            retries=self.retries,
            decision=self.decision,
        )
        for group in self._groups_of_one_size(views):
            edits.edit(batch, group, self._anchors(batch, group), told, judged)
            bar.finish(batch, len(group))
        if self._edits_of(batch.round):  # else it may be that there is nothing at all to train on
            self._end_round(batch, judged, step)

    def _end_round(self, batch: Batch, judged: Judged, step: int) -> None:
        """Names the views of a round that are left out, and records it. Each of rounds in flight together gets the seconds since
        the one before was done."""
        text = self._left_out_text(batch, judged)
        if text:
            CONSOLE.print(f"[bold yellow]Warning:[/bold yellow] {escape(text)}", highlight=False)
        with self._record:
            now = time.perf_counter()
            seconds, self._last = now - self._last, now
            self.history.add(
                {
                    "round": batch.round,
                    "step": step,
                    "views": list(batch.views),
                    "timesteps": list(batch.timesteps),
                    "noise": round(batch.noise, 4),
                    "seed": batch.seed,
                    "seconds": round(seconds, 2),
                    "unet_evaluations": judged.evaluations,
                    "peak_memory_gb": round(peak_memory_gb(self.datamanager.device), 3),
                    "change": self._mean_of("change", batch.round),
                    "correction": self._mean_of("correction", batch.round),
                    **({"judged": judged.record()} if self.judge else {}),
                    **({"keep_auto": note} if self.decision and (note := self.decision.record()) else {}),
                }
            )

    def _edits_of(self, number: int) -> list[EditKey]:
        """The stored edits of a round."""
        return [key for key in self.store.edits() if key.round == number]

    def _put(
        self,
        batch: Batch,
        request: EditRequest,
        position: int,
        image: np.ndarray,
        step: int,
        extra: Mapping[str, Any],
    ) -> None:
        """Stores an edit unless it is there already."""
        key = EditKey(batch.round, request.view_ids[position])
        if key in self.store:
            return
        record = {
            "timestep": request.timesteps[position],
            "step": step,
            "noise": request.noise,
            "seed": request.seed,
            "change": round(float(np.abs(image - request.originals[position]).mean()), 5),
            "correction": round(_correction(request, position, image), 5),
            **extra,
        }
        self.store.put(key, image, record)

    def _left_out_text(self, batch: Batch, judged: Judged) -> str:
        """Names the views of a round that are left out; empty for none."""
        return left_out_text(judged, f"Edit round {batch.round + 1}/{self.rounds}")

    def _anchors(self, batch: Batch, group: Sequence[int]) -> dict[int, np.ndarray]:
        """Views of the first round that this one is to follow, and their edits: spread over the angles they are seen from."""
        of_first_round = [key.view for key in self.store.edits() if key.round == 0]
        if self.anchors < 1 or batch.round == 0 or not of_first_round:
            return {}
        cameras = self.datamanager.train_camera(of_first_round)
        around = order_around_head(cameras.camera_to_worlds.cpu().numpy(), [0] * len(of_first_round))
        count = min(self.anchors, len(around))
        chosen = [of_first_round[around[(2 * i + 1) * len(around) // (2 * count)]] for i in range(count)]
        same_size = self._groups_of_one_size([group[0], *chosen])[0]
        return {
            view: self.store.get(EditKey(0, view)).astype(np.float32) / 255
            for view in chosen
            if view in same_size and view not in group
        }

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
            grid = edit_grid(originals.numpy(), edited.numpy())
            name = f"round_{batch.round:04d}" + (f"_{number}" if number else "")
            folder = self.history.path.parent / "edit_grids"
            with written_beside(folder / f"{name}.png") as partial:
                Image.fromarray(grid).save(partial, format="png")
            # Not at the top: as the first module of Nerfstudio that a process imports, its writer runs into an import circle.
            from nerfstudio.utils import writer

            writer.put_image(
                name="Edits/original over edited",
                image=torch.from_numpy(grid.astype(np.float32) / 255),
                step=step,
            )


def _correction(request: EditRequest, position: int, image: np.ndarray) -> float:
    """How far the edit of a view is from the render it started from."""
    here = slice(position, position + 1)
    kept = None if request.keep_mask is None else request.keep_mask[here]
    return corrections(request.images[here], image[None], kept)[0]
