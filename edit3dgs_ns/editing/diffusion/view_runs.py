"""A pipeline's own `__call__` for every view of a batch, all of them in step.

Each view is edited by the family's own pipeline, called for that view alone: prompt, condition, guidance and packing are what its
authors wrote. Only its scheduler is replaced, by one that hands every prediction out and waits for the latents of the next step.
So all views can come to agree before any takes its step, as in `InstructPix2Pix`'s loop:

```
runs = [ViewRun(lambda scheduler: pipeline_with(scheduler)(...), scheduler) for view in views]
[run.advance() for run in runs]           # Ready: prompt and condition are encoded, the schedule is set
[run.advance() for run in runs]           # a Prediction each: the network was evaluated
latents = scheduler.step(...)             # after all have come to agree
[run.advance(latents) for run in runs]    # the next Prediction, or at the end what the pipeline returns
```

A view's pipeline runs in a thread, for that is how Python can pause a function that knows nothing of it; only one thread is ever
awake, so that nothing depends on their order, and one view at a time needs the device's memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Ready:
    """The pipeline has encoded its inputs and set its schedule."""


@dataclass(frozen=True)
class Prediction:
    """The pipeline would take a step."""

    predicted: Tensor
    """What the network predicts, with guidance."""
    timestep: Tensor
    latents: Tensor
    """Which the step starts from."""


@dataclass(frozen=True)
class Finished:
    """The pipeline is done."""

    result: Any
    """What it returned."""


Event = Ready | Prediction | Finished


class _Abandoned(BaseException):
    """Ends a view's pipeline that nobody waits for any more. Not an Exception, which pipelines might catch."""


THREAD_NAME = "view of an edit"
"""Of the threads in which the views' pipelines run."""


class ViewRun:
    """One view's pipeline, paused wherever it asks for a step.

    Args:
        call: calls the pipeline with the scheduler that it is given.
        scheduler: the same one for all views of a batch, whose state is that of the step that all are in.
        begin_at: what is done with it once it has a schedule, such as cutting it.
        unit_start: the pipeline is given latents that are noised already, and must not scale them.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        scheduler: Any,
        begin_at: Callable[[Any], None],
        *,
        unit_start: bool,
    ):
        self._call, self._scheduler = call, _StepAsking(self, scheduler, begin_at, unit_start)
        self._events: SimpleQueue[Event | BaseException] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)

    def advance(self, latents: Tensor | None = None) -> Event:
        """Lets the pipeline go on until its next event.

        Args:
            latents: after a `Prediction`, what the step gave.

        Raises:
            BaseException: whatever the pipeline raised.
        """
        if self._thread.ident is None:
            self._thread.start()
        else:
            self._answers.put(latents)
        event = self._events.get()
        if isinstance(event, BaseException):
            raise event
        return event

    def abandon(self) -> None:
        """Ends the pipeline where it stands; harmless when it is done."""
        if self._thread.is_alive():
            self._answers.put(_Abandoned())
            self._thread.join()

    def ask(self, event: Event) -> Any:
        """In the view's thread: reports an event and waits for the answer."""
        self._events.put(event)
        answer = self._answers.get()
        if isinstance(answer, _Abandoned):
            raise answer
        return answer

    def _run(self) -> None:
        try:
            self._events.put(Finished(self._call(self._scheduler)))
        except _Abandoned:
            pass
        except BaseException as error:
            self._events.put(error)


class _StepAsking:
    """A diffusers scheduler as a pipeline sees it, whose steps are taken elsewhere."""

    def __init__(self, run: ViewRun, inner: Any, begin_at: Callable[[Any], None], unit_start: bool):
        self._run, self._inner, self._begin_at, self._unit_start = run, inner, begin_at, unit_start

        @functools.wraps(inner.set_timesteps)  # pipelines look at its signature
        def set_timesteps(*args: Any, **options: Any) -> None:
            inner.set_timesteps(*args, **options)
            self._begin_at(inner)
            run.ask(Ready())

        self.set_timesteps = set_timesteps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    @property
    def init_noise_sigma(self) -> Any:
        """Factor of the first latents."""
        return 1.0 if self._unit_start else self._inner.init_noise_sigma

    def step(
        self, model_output: Tensor, timestep: Tensor, sample: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """The latents of the next step."""
        return (self._run.ask(Prediction(model_output, timestep, sample)),)
