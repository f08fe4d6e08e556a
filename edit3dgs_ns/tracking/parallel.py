"""Work on parts of a video in threads: what takes time (PyTorch, OpenCV, embree, zlib, FFmpeg) leaves Python's lock alone."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch
from threadpoolctl import threadpool_limits

A = TypeVar("A")
B = TypeVar("B")

THREADS = min(os.cpu_count() or 1, 8)
_END = object()


@contextmanager
def one_thread_an_operation() -> Iterator[None]:
    """Let PyTorch and BLAS compute each operation in the thread that asks for it.

    The operations on a few points are so short that their threads mostly wait for each other, spinning: on a machine that does
    other work as well a fit was seen to take fifteen times as long. Threads over frames do not wait.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


def in_threads(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """`work` of every item, in their order; a few items are worked on at once, and none is taken long before its turn."""
    with ThreadPoolExecutor(THREADS) as pool:
        pending: deque[Future[B]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * THREADS:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


def read_ahead(items: Iterable[A], depth: int = 8) -> Iterator[A]:
    """The items, which a thread of its own makes up to `depth` ahead; its errors are raised here."""
    made: queue.Queue = queue.Queue(depth)
    stopped = threading.Event()

    def put(item: object) -> bool:
        while not stopped.is_set():
            try:
                made.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put((item, None)):
                    return
            put((_END, None))
        except BaseException as error:  # raised where the items are wanted
            put((_END, error))
        finally:
            if isinstance(items, Generator):
                items.close()

    maker = threading.Thread(target=make, daemon=True)
    maker.start()
    try:
        while True:
            item, error = made.get()
            if error is not None:
                raise error
            if item is _END:
                return
            yield item
    finally:
        stopped.set()
        maker.join()
