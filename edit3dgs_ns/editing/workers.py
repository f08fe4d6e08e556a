"""An editor on several processes or machines: a pool of Ray actors, each with a model of its own.

Whole requests are tasks, for the views of a batch are edited together. Where an editor's views do not depend on each other a
    request is divided into the groups that one process would take through the model together; either way the images are byte for
    byte those of one process. An actor that is killed is started again and repeats its task.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch

from edit3dgs_ns.editing.editor import EditRequest, EditResult, Finished, Progress, cost_of
from edit3dgs_ns.editing.ray_cluster import PATIENCE, await_first, connect, room, share
from edit3dgs_ns.editing.thread_safe_editor import computing_with
from edit3dgs_ns.editing.worker_names import OPTION, Workers
from edit3dgs_ns.errors import UserError

RESTARTS = 5
"""How often a killed actor is started again, and its task repeated."""
_PER_VIEW = 100
"""Progress is told in hundredths of a view: actors may have gone differently far."""
_LOOK_EVERY = 0.5
"""Seconds between two questions how far an actor is."""
_SILENT = 120.0
"""Seconds without an answer after which the user is told."""

logger = logging.getLogger(__name__)


@dataclass
class _Task:
    """A request, or a part of one, that an actor works on."""

    views: tuple[int, ...]
    """Positions in the request."""
    worker: int
    result: Any
    """Ray's reference to it."""
    edited: EditResult | None = None
    done: int = 0
    total: int = 0
    """Denoising steps."""


class RayEditor:
    """An `Editor`: gives requests to actors, the next one to that which has least to do. Several threads may share it.

    Args:
        workers: how many actors, and where.
        load: loads the editor in an actor; pickled.
        device: `cuda` or `cpu`, which decides what an actor asks the cluster for.
        views_per_task: views that one process takes through the model together.
        tell: told what it waits for, where that takes long; the log if not given.
        patience: seconds within which the first actor has to get what it asks the cluster for.

    Raises:
        UserError: no actor did; or what the editor raises as it is loaded.
    """

    def __init__(
        self,
        workers: Workers,
        load: Callable[[], Any],
        *,
        device: str = "cpu",
        views_per_task: int = 4,
        tell: Callable[[str], None] | None = None,
        patience: float = PATIENCE,
    ):
        import ray

        self._ray, self._views_per_task = ray, views_per_task
        self._tell_user = tell or logger.warning
        connect(ray, workers)
        count = workers.count or room(ray, device)
        options: dict[str, Any] = {
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
            "max_concurrency": 2,
        }
        wanted = share(ray, workers, device, count)
        options |= wanted
        actor: Any = ray.remote(**options)(_Worker)
        self._actors = [actor.remote(load, torch.get_num_threads()) for _ in range(count)]
        self._busy, self._lock = [0] * count, threading.Lock()
        self._starting = {actor.process_id.remote(): worker for worker, actor in enumerate(self._actors)}
        # All load at once: importing PyTorch and reading weights takes long.
        described = [actor.describe.remote() for actor in self._actors]
        try:
            first = await_first(ray, list(self._starting), wanted, self._tell_user, patience)
            self._settings, self._views_depend, self._weight_bytes = self._get(described[first])
        except BaseException:
            self.close()
            raise

    @property
    def settings(self) -> dict[str, Any]:
        """Of the editor in the actors: where it runs changes nothing."""
        return dict(self._settings)

    @property
    def views_depend(self) -> bool:
        """See `Editor`."""
        return bool(self._views_depend)

    @property
    def requests_at_once(self) -> int:
        """See `editor.requests_at_once`: one for every actor."""
        return len(self._actors)

    @property
    def weight_bytes(self) -> int | None:
        """See `KnowsCost`; of one actor."""
        return self._weight_bytes

    def evaluations_per_view(
        self,
        noise: float,
        steps: int | None,
        guidance_scale: float | None,
        image_guidance_scale: float | None,
    ) -> int | None:
        """See `KnowsCost`."""
        values = (noise, steps, guidance_scale, image_guidance_scale)
        answer: int | None = self._get(self._first.evaluations_per_view.remote(*values))
        return answer

    @property
    def _first(self) -> Any:
        """An actor that has started."""
        return self._actors[self._started()[0]]

    def _started(self) -> list[int]:
        """Actors that have got what they asked the cluster for; the others join when they do."""
        with self._lock:
            if self._starting:
                ready, _ = self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)
                for answer in ready:
                    del self._starting[answer]
            waiting = set(self._starting.values())
        return [worker for worker in range(len(self._actors)) if worker not in waiting]

    @property
    def process_ids(self) -> list[int]:
        """Of the actors."""
        return [self._get(actor.process_id.remote()) for actor in self._actors]

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        warning: str | None = self._get(self._first.unknown_instruction.remote(prompt))
        return warning

    def edit(
        self, request: EditRequest, progress: Progress | None = None, finished: Finished | None = None
    ) -> EditResult:
        """See `Editor`; waits for the actors, and raises what the editor raises."""
        started = time.perf_counter()
        tasks = [self._start(request, views) for views in self._parts(request)]
        waiting = {task.result: task for task in tasks}
        heard = time.monotonic()
        try:
            while waiting:
                ready, _ = self._ray.wait(list(waiting), timeout=_LOOK_EVERY)
                for result in ready:
                    task = waiting[result]
                    task.edited = self._get(result)
                    self._free(waiting.pop(result))
                    for place, view in enumerate(task.views):
                        if finished is not None:
                            finished(view, task.edited.images[place])
                if self._ask(tasks) or ready:
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENT:
                    heard = time.monotonic()
                    self._tell_user(
                        f"No worker has answered for {_SILENT:g} seconds: they are started again, or another program has taken "
                        "what they need (`ray status`). Nothing is lost; to go on without them, stop this run and resume it with "
                        f"{OPTION} 1."
                    )
                if progress is not None:
                    _report(tasks, progress)
        finally:
            for task in waiting.values():
                self._free(task)
        return _joined(request, tasks, time.perf_counter() - started)

    def close(self) -> None:
        """Ends the actors."""
        for actor in self._actors:
            self._ray.kill(actor)

    def _parts(self, request: EditRequest) -> list[tuple[int, ...]]:
        """The positions of the views of each task."""
        views = tuple(range(request.num_views))
        if self.views_depend or request.num_views <= self._views_per_task:
            return [views]
        return [views[i : i + self._views_per_task] for i in range(0, len(views), self._views_per_task)]

    def _start(self, request: EditRequest, views: tuple[int, ...]) -> _Task:
        started = self._started()
        with self._lock:
            worker = min(started, key=self._busy.__getitem__)
            self._busy[worker] += 1
        part = request if len(views) == request.num_views else request.part(views)
        return _Task(views, worker, self._actors[worker].edit.remote(part))

    def _free(self, task: _Task) -> None:
        with self._lock:
            self._busy[task.worker] -= 1

    def _ask(self, tasks: Sequence[_Task]) -> bool:
        """Asks the actors how far they are, and says whether any answered; one that is being started again does not."""
        questions = {
            task.worker: self._actors[task.worker].progress.remote() for task in tasks if task.edited is None
        }
        if not questions:
            return False
        ready, _ = self._ray.wait(list(questions.values()), num_returns=len(questions), timeout=1.0)
        for task in tasks:
            if questions.get(task.worker) in ready and task.edited is None:
                with contextlib.suppress(UserError):
                    task.done, task.total = self._get(questions[task.worker])
        return bool(ready)

    def _get(self, result: Any) -> Any:
        """What an actor returns; its exceptions as they were raised."""
        exceptions = self._ray.exceptions
        try:
            return self._ray.get(result)
        except exceptions.RayTaskError as error:
            raise error.cause from None
        except exceptions.RayActorError as error:
            raise UserError(
                f"{OPTION}: a worker ended, also after {RESTARTS} new starts ({error}). Does one model fit the memory of each? "
                "Give fewer workers."
            ) from None


class _Worker:
    """Runs in an actor: an editor, and how far it is."""

    def __init__(self, load: Callable[[], Any], threads: int):
        self._threads = threads
        self._load, self._loaded, self._loading = load, None, threading.Lock()
        self._progress, self._one_at_a_time = (0, 0), threading.Lock()

    @property
    def _editor(self) -> Any:
        """Loaded by the first method that needs it, which raises what that raises: of a constructor, Ray keeps the text alone."""
        with self._loading:
            if self._loaded is None:
                self._loaded = self._load()
        return self._loaded

    def describe(self) -> tuple[dict[str, Any], bool, int | None]:
        """The editor's settings, whether its views depend on each other, and the memory of its weights."""
        cost = cost_of(self._editor)
        weights = None if cost is None else cost.weight_bytes
        return dict(self._editor.settings), bool(self._editor.views_depend), weights

    def evaluations_per_view(self, *values: Any) -> int | None:
        """See `KnowsCost`."""
        cost = cost_of(self._editor)
        return None if cost is None else cost.evaluations_per_view(*values)

    def process_id(self) -> int:
        """Of this process."""
        return os.getpid()

    def unknown_instruction(self, prompt: str) -> str | None:
        """See `Editor`."""
        return cast("str | None", self._editor.unknown_instruction(prompt))

    def edit(self, request: EditRequest) -> EditResult:
        """See `Editor`."""
        with self._one_at_a_time, computing_with(self._threads):
            self._progress = (0, 0)
            return cast(EditResult, self._editor.edit(request, progress=self._told))

    def progress(self) -> tuple[int, int]:
        """Denoising steps done and to do."""
        return self._progress

    def _told(self, done: int, total: int) -> None:
        self._progress = (done, total)


def _report(tasks: Sequence[_Task], progress: Progress) -> None:
    """Tells how far all tasks are together."""
    shares = [1.0 if task.edited else task.done / max(task.total, 1) for task in tasks]
    views = sum(len(task.views) for task in tasks)
    done = sum(share * len(task.views) for share, task in zip(shares, tasks, strict=True))
    progress(round(_PER_VIEW * done), _PER_VIEW * views)


def _joined(request: EditRequest, tasks: Sequence[_Task], seconds: float) -> EditResult:
    """The results of all tasks of a request."""
    images, evaluations, settings = np.empty_like(request.images), 0, {}
    for task in tasks:
        assert task.edited is not None
        images[list(task.views)] = task.edited.images
        evaluations += task.edited.unet_evaluations
        settings = task.edited.settings
    return EditResult(images, settings, evaluations, seconds)
