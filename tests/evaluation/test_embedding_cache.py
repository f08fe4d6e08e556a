"""An image is embedded once, by its content; a damaged cache is made again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edit3dgs_ns.evaluation.embedding_cache import EmbeddingCache


class Counting:
    """Mean colours, and how many images were asked for."""

    def __init__(self) -> None:
        self.images = 0

    def __call__(self, images) -> np.ndarray:  # type: ignore[no-untyped-def]
        self.images += len(images)
        return np.stack([image.mean(axis=(0, 1)) for image in images]).astype(np.float32)


def image(value: int, shape: tuple[int, int, int] = (4, 6, 3)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


def test_embedded_once_also_by_another_process(tmp_path: Path) -> None:
    embed = Counting()
    path = tmp_path / "deep" / "cache.npz"
    cache = EmbeddingCache(path, embed, 3)
    first = cache([image(1), image(2), image(1)])
    assert embed.images == 2 and first[:, 0].tolist() == [1, 2, 1]
    again = EmbeddingCache(path, embed, 3)([image(2), image(3), image(1)])
    assert embed.images == 3 and again[:, 0].tolist() == [2, 3, 1]
    assert [p.name for p in path.parent.iterdir()] == ["cache.npz"]


def test_a_changed_pixel_or_shape_is_another_image(tmp_path: Path) -> None:
    embed = Counting()
    cache = EmbeddingCache(tmp_path / "cache.npz", embed, 3)
    changed = image(1)
    changed[3, 5, 2] = 2
    cache([image(1), changed, image(1, (6, 4, 3))])
    assert embed.images == 3
    # A view with other strides is the same image.
    cache([np.ascontiguousarray(image(1).transpose(1, 0, 2)).transpose(1, 0, 2)])
    assert embed.images == 3


def test_damaged_and_foreign_caches_are_made_again(tmp_path: Path) -> None:
    path = tmp_path / "cache.npz"
    EmbeddingCache(path, Counting(), 3)([image(1)])
    whole = path.read_bytes()
    for content in (b"", b"nothing", whole[: len(whole) // 2]):
        path.write_bytes(content)
        embed = Counting()
        assert EmbeddingCache(path, embed, 3)([image(1)])[0, 0] == 1
        assert embed.images == 1
    other = EmbeddingCache(path, lambda images: np.zeros((len(images), 5), np.float32), 5)
    assert other([image(1)]).shape == (1, 5)
    assert EmbeddingCache(path, Counting(), 3)([]).shape == (0, 3)
