"""Images come as `read` gives them, whoever decodes them and when; memory is bounded; workers end and report."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from edit3dgs_ns.training.image_stream import ImageStream

IMAGE_BYTES = 2 * 2 * 3


class Reader:
    """Counts and times what is read; image `k` is full of `k`."""

    def __init__(self, fails: frozenset[int] = frozenset()):
        self.reads: Counter[int] = Counter()
        self.threads: set[str] = set()
        self.alive = self.most_alive = 0
        self.gate = threading.Event()
        self.gate.set()
        self._fails, self._lock = fails, threading.RLock()

    def __call__(self, key: int) -> np.ndarray:
        self.gate.wait(10)
        with self._lock:
            self.reads[key] += 1
            self.threads.add(threading.current_thread().name)
        if key in self._fails:
            raise ValueError(f"image {key} is damaged")
        image = np.full((2, 2, 3), key, np.uint8)
        with self._lock:
            self.alive += 1
            self.most_alive = max(self.most_alive, self.alive)
        weakref.finalize(image, self._freed)
        return image

    def _freed(self) -> None:
        with self._lock:
            self.alive -= 1


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end, "waited for 10 s in vain"
        time.sleep(0.001)


def stream_threads() -> int:
    return sum(thread.name.startswith("image-stream") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_images_are_right_and_the_cache_bounded(workers: int) -> None:
    read = Reader()
    stream = ImageStream(read, max_bytes=2 * IMAGE_BYTES + 5, workers=workers)
    order = [0, 1, 2, 3]
    for _ in range(3):
        for position, key in enumerate(order):
            stream.prefetch(order[position : position + 2])
            assert (stream[key] == key).all() and stream[key].shape == (2, 2, 3)
    assert len(stream) == 2
    assert read.reads[0] == read.reads[1] == 1 and min(read.reads[2], read.reads[3]) >= 3
    stream.close()


def test_announced_images_are_decoded_by_workers_before_they_are_asked_for() -> None:
    read = Reader()
    stream = ImageStream(read, max_bytes=0, workers=2)
    stream.prefetch(range(6))
    wait_for(lambda: sum(read.reads.values()) == 6)
    assert all((stream[key] == key).all() for key in range(6))
    assert read.reads == Counter(range(6))  # none was decoded twice
    assert all(name.startswith("image-stream") for name in read.threads)
    stream.close()


def test_what_no_worker_has_begun_is_decoded_by_the_one_who_asks() -> None:
    read = Reader()
    read.gate.clear()
    stream = ImageStream(read, max_bytes=0, workers=1)
    stream.prefetch([1, 2])
    threading.Timer(0.05, read.gate.set).start()
    assert (stream[2] == 2).all()
    assert threading.current_thread().name in read.threads
    assert (stream[1] == 1).all() and read.reads == Counter([1, 2])
    stream.close()


def test_memory_is_bounded_by_the_cache_and_the_announced() -> None:
    read, ahead, kept = Reader(), 3, 5
    stream = ImageStream(read, max_bytes=kept * IMAGE_BYTES, workers=4)
    for key in range(100):
        stream.prefetch(range(key, key + ahead))
        _ = stream[key]
    assert len(stream) == kept
    # Besides: the one just taken, and one in the hands of each worker whose announcement was withdrawn.
    assert read.most_alive <= kept + ahead + 1 + 4
    stream.close()


def test_a_worker_s_error_reaches_the_one_who_asks_for_that_image_only() -> None:
    read = Reader(fails=frozenset({2, 3}))
    stream = ImageStream(read, max_bytes=1000, workers=2)
    stream.prefetch(range(5))
    wait_for(lambda: sum(read.reads.values()) == 5)
    assert (stream[0] == 0).all() and (stream[4] == 4).all()
    with pytest.raises(ValueError, match="image 2 is damaged"):
        _ = stream[2]
    stream.prefetch([1])  # image 3 is no longer needed: nobody hears of it
    assert (stream[1] == 1).all()
    with pytest.raises(ValueError, match="image 2 is damaged"):
        _ = stream[2]  # asked for again, it is read again
    stream.close()


def test_a_change_of_plan_forgets_what_was_announced() -> None:
    read = Reader()
    read.gate.clear()
    stream = ImageStream(read, max_bytes=1000, workers=1)
    stream.prefetch(range(20))
    stream.prefetch([30])
    read.gate.set()
    assert (stream[30] == 30).all()
    stream.close()
    assert set(read.reads) <= {0, 30}  # at most the one that the worker had begun


def test_making_room() -> None:
    read = Reader()
    stream = ImageStream(read, max_bytes=2 * IMAGE_BYTES, workers=1)
    assert (stream[0] == 0).all() and (stream[1] == 1).all() and (stream[2] == 2).all()
    stream.keep_only(lambda key: key != 0)
    _ = stream[2]
    assert len(stream) == 2
    for key in (1, 2):
        before = read.reads[key]
        _ = stream[key]
        assert read.reads[key] == before
    _ = stream.get(0, keep=False)
    assert len(stream) == 2
    stream.close()


def test_no_thread_before_it_is_needed_and_none_after_close() -> None:
    gc.collect()
    others = stream_threads()  # of trainings that other tests share
    stream = ImageStream(Reader(), max_bytes=0, workers=3)
    _ = stream[1]
    assert stream_threads() == others
    stream.prefetch(range(10))
    assert stream_threads() > others
    stream.close()
    assert stream_threads() == others
    stream.prefetch([4])
    assert (stream[4] == 4).all()  # a closed stream can be used on
    stream.close()


def test_a_stream_that_is_let_go_takes_its_threads_along() -> None:
    gc.collect()
    others = stream_threads()
    stream = ImageStream(Reader(), max_bytes=0, workers=2)
    stream.prefetch(range(10))
    assert stream_threads() > others
    del stream
    gc.collect()
    wait_for(lambda: stream_threads() <= others)


@pytest.mark.parametrize("end", ["pass", "raise KeyboardInterrupt", "raise ValueError('boom')"])
def test_python_ends_with_workers_at_work(end: str) -> None:
    """However the training ends, unread images hold up the process no longer than their decoding."""
    code = (
        "import time, numpy as np\n"
        "from edit3dgs_ns.training.image_stream import ImageStream\n"
        "def read(key):\n    time.sleep(0.05)\n    return np.zeros((2, 2, 3), np.uint8)\n"
        "stream = ImageStream(read, 0, 2)\n"
        f"stream.prefetch(range(20))\nstream[0]\n{end}\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode == 0) == (end == "pass"), done.stderr
    assert "Exception ignored" not in done.stderr


def test_negative_sizes_are_refused() -> None:
    for arguments in ({"max_bytes": -1, "workers": 1}, {"max_bytes": 1, "workers": -1}):
        with pytest.raises(ValueError, match="must not be negative"):
            ImageStream(Reader(), **arguments)
