"""Edits of a group of views until the judge accepts them: refused views are edited again with another seed, then left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.edit_training.keep_decision import KeepDecision
from edit3dgs_ns.editing.editor import Editor, EditRequest, EditResult, Progress
from edit3dgs_ns.editing.judging.judge import ADVICE, Fault, Verdict, judge_alone, judge_together
from edit3dgs_ns.editing.schedule import Batch

_SEED_STEP = 7_919
"""Between the seeds of two attempts; far from those of neighbouring rounds."""
_SIBLINGS = 4
"""Accepted views that refused ones follow when they are edited again."""

Image = Float[np.ndarray, "height width 3"]


class MakeRequest(Protocol):
    """Makes the request for some views of a batch; see `RequestMaker.make`."""

    def __call__(
        self, batch: Batch, views: Sequence[int], anchors: Mapping[int, Image] | None = None
    ) -> EditRequest:
        """See `RequestMaker.make`."""
        ...


@dataclass
class Judged:
    """What became of the views of a round."""

    refused: Counter[Fault] = field(default_factory=Counter)
    """Verdicts against views, over all attempts."""
    mended: int = 0
    """Views that were moved back into place."""
    edited_again: int = 0
    """Edits with another seed."""
    left_out: list[dict[str, Any]] = field(default_factory=list)
    """Views of which no edit was accepted."""
    evaluations: int = 0
    """Evaluations of the diffusion model."""

    def record(self) -> dict[str, Any]:
        """For `edit_history.json`."""
        return {
            "refused": dict(self.refused),
            "mended": self.mended,
            "edited_again": self.edited_again,
            "left_out": self.left_out,
        }


class JudgedEdits:
    """Edits groups of views.

    Args:
        editor: edits.
        make_request: makes its requests.
        store: called with the request, the position of a view in it, its edit, and what to record, once the edit is accepted.
        discard: called with the number of a view whose stored edit turned out to be unlike the others'.
        judge: whether edits are judged at all. Without, the first one is accepted, whatever it is.
        retries: how often a refused view is edited again.
        decision: whether eyes and mouth are kept; once all of a request's views are there it may change them.
    """

    def __init__(
        self,
        editor: Editor,
        make_request: MakeRequest,
        store: Callable[[EditRequest, int, Image, dict[str, Any]], None],
        discard: Callable[[int], None],
        *,
        judge: bool = True,
        retries: int = 2,
        decision: KeepDecision | None = None,
    ):
        self._editor, self._make_request = editor, make_request
        self._store, self._discard = store, discard
        self._judge, self._retries, self._decision = judge, retries, decision

    def edit(
        self,
        batch: Batch,
        group: Sequence[int],
        anchors: Mapping[int, Image],
        progress: Progress,
        result: Judged,
    ) -> None:
        """Edits some views of a batch, which share an image size.

        Args:
            batch: the round.
            group: the views.
            anchors: other views that are edited along, and the edits they start from.
            progress: told of the denoising steps.
            result: gets what became of the views.
        """
        if not self._judge and not self._undecided:
            self._accept_all(self._make_request(batch, group, anchors), progress, result)
            return
        waiting, accepted = list(group), dict[int, Image]()
        for attempt in range(self._retries + 1):
            led = {**anchors, **self._siblings(accepted)}
            request = self._make_request(replace(batch, seed=batch.seed + _SEED_STEP * attempt), waiting, led)
            verdicts = self._judged(request, progress, result)
            result.edited_again += len(waiting) if attempt else 0
            refused = {}
            for position, view in enumerate(waiting):
                verdict = verdicts[position]
                if verdict.fault is None:
                    accepted[view] = verdict.image
                    result.mended += verdict.mended is not None
                else:
                    refused[view] = (request.timesteps[position], verdict)
                    result.refused[verdict.fault] += 1
            waiting = list(refused)
            if not waiting:
                return
        for view, (timestep, verdict) in refused.items():
            reason = {"fault": verdict.fault, "detail": verdict.detail}
            result.left_out.append({"view": view, "timestep": timestep, **reason})

    def _accept_all(self, request: EditRequest, progress: Progress, result: Judged) -> None:
        done: set[int] = set()

        def keep(position: int, image: Image) -> None:
            if position not in done and position not in request.anchors:
                self._store(request, position, image, {})
                done.add(position)

        edited = self._editor.edit(request, progress=progress, finished=keep)
        for position, image in enumerate(edited.images):
            keep(position, image)
        result.evaluations += edited.unet_evaluations

    def _judged(self, request: EditRequest, progress: Progress, result: Judged) -> list[Verdict]:
        """Edits a request, stores what is accepted, and returns the verdicts.

        An edit that does not depend on the others is stored as soon as it is good by itself, so that a crash loses nothing.
        """
        alone: dict[int, Verdict] = {
            position: Verdict(request.images[position]) for position in request.anchors
        }

        def judge(position: int, image: Image) -> None:
            if position in alone:
                return
            verdict = judge_alone(request, position, image) if self._judge else Verdict(image)
            alone[position] = verdict
            if verdict.fault is None and early:
                self._store(request, position, verdict.image, verdict.record())

        early = not self._editor.views_depend and not self._undecided
        edited: EditResult = self._editor.edit(request, progress=progress, finished=judge)
        for position, image in enumerate(edited.images):
            judge(position, image)
        result.evaluations += edited.unet_evaluations
        verdicts = [alone[position] for position in range(request.num_views)]
        if self._judge:
            verdicts = judge_together(request, verdicts)
        if self._decision is not None and self._undecided:
            verdicts = self._decision.settle(request, verdicts)
        for position, verdict in enumerate(verdicts):
            if position in request.anchors:
                continue
            if verdict.fault is None:
                self._store(request, position, verdict.image, verdict.record())
            elif alone[position].fault is None and early:
                self._discard(request.view_ids[position])
        return verdicts

    @property
    def _undecided(self) -> bool:
        return self._decision is not None and self._decision.is_open

    def _siblings(self, accepted: Mapping[int, Image]) -> dict[int, Image]:
        """Accepted views that refused ones are edited along with: their appearance is settled."""
        if not self._editor.views_depend:
            return {}
        return dict(list(accepted.items())[:_SIBLINGS])


def left_out_text(judged: Judged, prefix: str) -> str:
    """One line for each view that was left out, and what a user can do; empty if there is none.

    Args:
        judged: of a round.
        prefix: of the text, like "Round 3".
    """
    if not judged.left_out:
        return ""
    lines = [
        f"  view {entry['view']} (timestep {entry['timestep']}): {entry['fault']}, {entry['detail']}"
        for entry in judged.left_out
    ]
    faults = dict.fromkeys(entry["fault"] for entry in judged.left_out)
    advice = [f"  {fault}: {ADVICE[fault]}" for fault in faults]
    count = len(judged.left_out)
    views = "1 view is" if count == 1 else f"{count} views are"
    return "\n".join(
        [f"{prefix}: {views} left out of the training, none of their edits was good:", *lines, *advice]
    )


def summary(batches: Sequence[Mapping[str, Any]]) -> str:
    """What the judge did in all rounds, in a few words for the viewer; empty where it had nothing to do.

    Args:
        batches: of `edit_history.json`.
    """
    records = [batch["judged"] for batch in batches if batch.get("judged")]
    again, mended = (sum(record[name] for record in records) for name in ("edited_again", "mended"))
    faults = Counter(entry["fault"] for record in records for entry in record["left_out"])
    parts = []
    if mended:
        parts.append(f"{mended} moved back into place")
    if again:
        parts.append(f"{again} edited again")
    if faults:
        reasons = ", ".join(f"{count} {fault}" for fault, count in faults.items())
        parts.append(f"{faults.total()} left out ({reasons})")
    return f"Views: {', '.join(parts)}." if parts else ""
