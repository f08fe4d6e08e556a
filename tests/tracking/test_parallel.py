"""Threads over the frames of a video: order, errors, and nothing left behind."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from edit3dgs_ns.tracking.parallel import THREADS, in_threads, one_thread_an_operation, read_ahead


def test_results_come_in_the_order_of_the_items_though_later_ones_are_done_first() -> None:
    def work(number: int) -> int:
        time.sleep(0.01 * (number % 3 == 0))
        return number * number

    assert list(in_threads(work, range(20))) == [n * n for n in range(20)]


def test_few_items_are_taken_before_their_turn() -> None:
    taken: list[int] = []

    def items():
        for number in range(100):
            taken.append(number)
            yield number

    results = in_threads(lambda number: number, items())
    assert next(results) == 0 and len(taken) <= 2 * THREADS + 1
    results.close()
    assert len(taken) <= 2 * THREADS + 1


def test_errors_of_the_work_are_raised_where_its_results_are_wanted() -> None:
    def work(number: int) -> float:
        return 1 / (number - 3)

    results = in_threads(work, range(10))
    assert [next(results) for _ in range(3)] == [1 / (n - 3) for n in range(3)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_a_reader_ahead_ends_and_closes_what_it_reads() -> None:
    closed = threading.Event()

    def items():
        try:
            yield from range(1000)
        finally:
            closed.set()

    ahead = read_ahead(items(), depth=2)
    assert [next(ahead), next(ahead)] == [0, 1]
    ahead.close()
    assert closed.is_set()
    assert list(read_ahead(iter(range(30)), depth=3)) == list(range(30))


def test_a_reader_ahead_raises_the_error_after_what_came_before_it() -> None:
    def items():
        yield 1
        raise OSError("damaged")

    ahead = read_ahead(items())
    assert next(ahead) == 1
    with pytest.raises(OSError, match="damaged"):
        next(ahead)


def test_the_number_of_threads_is_what_it_was_before() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), one_thread_an_operation():
        assert torch.get_num_threads() == 1
        raise KeyError
    assert torch.get_num_threads() == before
