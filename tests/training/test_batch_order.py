"""Every image once an epoch, one group a batch, the same order whoever asks for it in whichever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.training.batch_order import BatchOrder

GROUPS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=30)


@given(groups=GROUPS, size=st.integers(1, 4), seed=st.integers(0, 3), epochs=st.integers(1, 4))
def test_each_epoch_uses_every_image_once(
    groups: list[tuple[int, int]], size: int, seed: int, epochs: int
) -> None:
    order = BatchOrder(groups, size, seed)
    steps = sum(-(-groups.count(group) // size) for group in set(groups))
    for epoch in range(epochs):
        batches = [order[step] for step in range(epoch * steps, (epoch + 1) * steps)]
        assert sorted(i for batch in batches for i in batch) == list(range(len(groups)))
        assert all(len({groups[i] for i in batch}) == 1 and len(batch) <= size for batch in batches)


@given(groups=GROUPS, steps=st.lists(st.integers(0, 100), max_size=40), ahead=st.integers(0, 9))
def test_looking_ahead_changes_nothing(groups: list[tuple[int, int]], steps: list[int], ahead: int) -> None:
    order = BatchOrder(groups, 2, seed=5)
    for step in steps:
        for later in range(step, step + ahead):
            _ = order[later]
        assert order[step] == BatchOrder(groups, 2, seed=5)[step]


def test_epochs_and_seeds_differ() -> None:
    groups = [(i // 3, 0) for i in range(60)]
    first = [BatchOrder(groups, 1, seed=0)[step] for step in range(60)]
    assert [BatchOrder(groups, 1, seed=0)[step] for step in range(60, 120)] != first
    assert [BatchOrder(groups, 1, seed=1)[step] for step in range(60)] != first


def test_restricting_and_lifting_it() -> None:
    groups = [(i // 4, 0) for i in range(20)]
    order, free = BatchOrder(groups, 2, seed=0), BatchOrder(groups, 2, seed=0)
    order.restrict_to([3, 1, 17])
    assert sorted(order[0] + order[1]) == [1, 3, 17] == sorted(order[200] + order[201])
    order.restrict_to(None)
    assert [order[step] for step in range(20)] == [free[step] for step in range(20)]
    with pytest.raises(ValueError, match="no images"):
        order.restrict_to([])
