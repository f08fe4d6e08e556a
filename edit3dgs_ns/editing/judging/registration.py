"""Registration of an edited view to its original: the similarity by which the head has moved or grown in the image.

Edits change colours, and contrasts with them: hair that was darker than the skin becomes lighter. What stays are the directions
    of the edges: the head's outline, and the features inside it. A gradient is therefore compared as a complex number with its
    angle doubled, which is the same for both signs of an edge (gradient correlation, Argyriou and Vlachos, BMVC 2003). First a
    correlation over the whole image for every scale of a coarse search (by Fourier transform), then displacements of small
    blocks at edges, and the similarity that most of them agree on.

Convention: pixels (x, y) with the centre of the image as origin; a point p of the original is found at `scale * p + shift` in the
    edited image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex64, Float
from PIL import Image
from scipy.ndimage import affine_transform, binary_dilation, gaussian_filter

_WORKING_SIDE = 256
"""Pixels of the longer side that images are compared at."""
_COARSE_SIDE = 128
_SCALES = np.exp(np.arange(-11, 12) * 0.02)
"""Of the coarse search: 0.80 to 1.25."""
_BLOCK, _REACH = 24, 4
"""Side of a block, and how far around its expected place it is searched, pixels at the working size."""
_BLOCKS = 160
_AGREEING = 1.0
"""Pixels by which the displacement of a block may differ from the similarity that it supports."""
_LEAST_BLOCKS = 12
_LEAST_SUPPORT = 0.35
"""Share of the blocks that have to agree on a similarity for it to be known."""


@dataclass(frozen=True)
class Similarity:
    """How an image has moved against another: scale about the image's centre, and shift in pixels."""

    scale: float
    shift: tuple[float, float]
    """To the right and down."""
    support: float
    """Share of the blocks at edges that agree."""

    def displacement(self, size: tuple[int, int], head: Bool[np.ndarray, "height width"]) -> float:
        """The farthest that any point of the head has moved, as a share of the image's longer side."""
        rows, columns = np.nonzero(head)
        if not len(rows):
            return 0.0
        points = np.stack([columns - (size[1] - 1) / 2, rows - (size[0] - 1) / 2], axis=1)
        moved = (self.scale - 1) * points + self.shift
        return float(np.linalg.norm(moved, axis=1).max() / max(size))


def register(
    original: Float[np.ndarray, "height width 3"],
    edited: Float[np.ndarray, "height width 3"],
    head: Bool[np.ndarray, "height width"],
) -> Similarity | None:
    """The similarity from an original to its edit; None where too few edges agree on one.

    Args:
        original: the view before the edit.
        edited: the view after it.
        head: where the rig is drawn in the original; edges elsewhere do not count.
    """
    factor = min(1.0, _WORKING_SIDE / max(head.shape))
    before, after = (_resized(_grey(image), factor) for image in (original, edited))
    near = (
        _resized(binary_dilation(head, iterations=max(2, round(3 / factor))).astype(np.float32), factor) > 0.5
    )
    if before.shape != after.shape or min(before.shape) < 2 * _BLOCK or not near.any():
        return None
    scale, shift = _coarse(before, after, near)
    found = _refined(before, after, near, scale, shift)
    if found is None:
        return None
    return Similarity(found.scale, (found.shift[0] / factor, found.shift[1] / factor), found.support)


def undone(
    image: Float[np.ndarray, "height width 3"], by: Similarity
) -> tuple[Float[np.ndarray, "height width 3"], Bool[np.ndarray, "height width"]]:
    """The image moved back, and where it has content; elsewhere its border is repeated."""
    height, width = image.shape[:2]
    centre = np.array([(height - 1) / 2, (width - 1) / 2])
    offset = centre - by.scale * centre + np.array([by.shift[1], by.shift[0]])
    matrix = np.array([by.scale, by.scale])
    moved = np.stack(
        [affine_transform(image[..., k], matrix, offset, order=3, mode="nearest") for k in range(3)], axis=-1
    )
    rows, columns = np.mgrid[:height, :width]
    source = [by.scale * rows + offset[0], by.scale * columns + offset[1]]
    known = (source[0] >= 0) & (source[0] <= height - 1) & (source[1] >= 0) & (source[1] <= width - 1)
    return moved.clip(0, 1).astype(np.float32), known


# -- coarse: over the whole image ----------------------------------------------------------------------------------


def _coarse(
    before: Float[np.ndarray, "h w"], after: Float[np.ndarray, "h w"], near: Bool[np.ndarray, "h w"]
) -> tuple[float, tuple[float, float]]:
    """Scale and shift of the highest correlation of edges."""
    factor = min(1.0, _COARSE_SIDE / max(before.shape))
    first, second = _resized(before, factor), _resized(after, factor)
    weight = gaussian_filter(_resized(near.astype(np.float32), factor), 2.0)
    wanted = np.conj(np.fft.fft2(_edges(first) * weight, _padded(first.shape)))
    best: tuple[float, float, tuple[float, float]] = (-math.inf, 1.0, (0.0, 0.0))
    for scale in _SCALES:
        # After scaling back, only a shift is left.
        back = _scaled_back(second, float(scale))
        surface = np.fft.ifft2(np.fft.fft2(_edges(back), _padded(first.shape)) * wanted).real
        y, x = np.unravel_index(surface.argmax(), surface.shape)
        value = float(surface[y, x])
        if value > best[0]:
            dy, dx = (
                int(p) - n if p > n // 2 else int(p) for p, n in zip((y, x), surface.shape, strict=True)
            )
            best = (value, float(scale), (scale * dx / factor, scale * dy / factor))
    return best[1], best[2]


def _padded(shape: tuple[int, ...]) -> tuple[int, int]:
    return (2 * shape[0], 2 * shape[1])


def _scaled_back(image: Float[np.ndarray, "h w"], scale: float) -> Float[np.ndarray, "h w"]:
    centre = (np.array(image.shape) - 1) / 2
    return affine_transform(image, np.array([scale, scale]), centre - scale * centre, order=1, mode="nearest")


def _edges(grey: Float[np.ndarray, "h w"]) -> Complex64[np.ndarray, "h w"]:
    """Directions of edges with their angle doubled; strong edges count little more than weak ones."""
    smooth = gaussian_filter(grey, 1.0)
    dy, dx = np.gradient(smooth)
    gradient = dx + 1j * dy
    size = np.abs(gradient)
    return (gradient**2 / (size + 1e-6) / np.sqrt(size + 0.01)).astype(np.complex64)


# -- fine: blocks at edges -----------------------------------------------------------------------------------------


def _refined(
    before: Float[np.ndarray, "h w"],
    after: Float[np.ndarray, "h w"],
    near: Bool[np.ndarray, "h w"],
    scale: float,
    shift: tuple[float, float],
) -> Similarity | None:
    """The similarity that most blocks agree on, near a first guess."""
    first = _edges(before)
    places = _block_places(np.abs(first) * near)
    if len(places) < _LEAST_BLOCKS:
        return None
    moved, guess = after, Similarity(scale, shift, 0.0)
    result = None
    for _ in range(3):
        back, known = undone(np.repeat(moved[..., None], 3, axis=2), guess)
        offsets, trusted = _displacements(first, _edges(back[..., 0]), places, known)
        if trusted.sum() < _LEAST_BLOCKS:
            return None
        centre = (np.array(before.shape)[::-1] - 1) / 2
        step = _agreed(places[trusted] - centre, offsets[trusted])
        # The image was moved back by the guess: a further similarity comes before it.
        guess = Similarity(
            guess.scale * step.scale,
            (
                guess.scale * step.shift[0] + guess.shift[0],
                guess.scale * step.shift[1] + guess.shift[1],
            ),
            step.support,
        )
        result = guess
        if abs(step.scale - 1) < 5e-4 and math.hypot(*step.shift) < 0.05:
            break
    assert result is not None
    return result if result.support >= _LEAST_SUPPORT else None


def _block_places(strength: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "blocks 2"]:
    """Centres (x, y) of blocks at the strongest edges, none near another, all wholly inside."""
    margin = _BLOCK // 2 + _REACH
    inside = np.zeros_like(strength, bool)
    inside[margin:-margin, margin:-margin] = True
    cell = _BLOCK // 3
    found = []
    for y in range(margin, strength.shape[0] - margin, cell):
        for x in range(margin, strength.shape[1] - margin, cell):
            part = strength[y : y + cell, x : x + cell] * inside[y : y + cell, x : x + cell]
            row, column = np.unravel_index(part.argmax(), part.shape)
            found.append((float(part[row, column]), x + int(column), y + int(row)))
    strong = sorted((entry for entry in found if entry[0] > 0.02), reverse=True)[:_BLOCKS]
    return np.array([(x, y) for _, x, y in strong], np.float64).reshape(-1, 2)


def _displacements(
    first: Complex64[np.ndarray, "h w"],
    second: Complex64[np.ndarray, "h w"],
    places: Float[np.ndarray, "blocks 2"],
    known: Bool[np.ndarray, "h w"],
) -> tuple[Float[np.ndarray, "blocks 2"], Bool[np.ndarray, " blocks"]]:
    """How far each block has moved, to fractions of a pixel, and whether its edges fix that."""
    offsets, trusted = np.zeros_like(places), np.zeros(len(places), bool)
    half = _BLOCK // 2
    for number, (x, y) in enumerate(places.astype(int)):
        block = first[y - half : y + half, x - half : x + half]
        area = second[y - half - _REACH : y + half + _REACH, x - half - _REACH : x + half + _REACH]
        if not known[y - half - _REACH : y + half + _REACH, x - half - _REACH : x + half + _REACH].all():
            continue
        windows = np.lib.stride_tricks.sliding_window_view(area, block.shape)
        likeness = np.einsum("abij,ij->ab", windows, block.conj()).real
        likeness /= np.sqrt((np.abs(windows) ** 2).sum(axis=(2, 3)) * (np.abs(block) ** 2).sum() + 1e-9)
        row, column = np.unravel_index(likeness.argmax(), likeness.shape)
        if likeness[row, column] < 0.3 or not (0 < row < 2 * _REACH and 0 < column < 2 * _REACH):
            continue
        peak = likeness[row - 1 : row + 2, column - 1 : column + 2]
        across, down = _peak(peak[1]), _peak(peak[:, 1])
        # A straight edge says nothing of the way along it: the likeness must fall to all sides.
        fall = min(peak[1, 1] - peak[1, [0, 2]].mean(), peak[1, 1] - peak[[0, 2], 1].mean())
        if across is not None and down is not None and fall > 0.01:
            offsets[number] = (column - _REACH + across, row - _REACH + down)
            trusted[number] = True
    return offsets, trusted


def _peak(values: Float[np.ndarray, " three"]) -> float | None:
    """Where a parabola through three values is highest, between -0.5 and 0.5 about the middle one."""
    low, middle, high = map(float, values)
    bend = low - 2 * middle + high
    return None if bend >= -1e-9 else float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5))


def _agreed(places: Float[np.ndarray, "blocks 2"], offsets: Float[np.ndarray, "blocks 2"]) -> Similarity:
    """The similarity that most displacements agree on: pairs of blocks propose it (RANSAC), those that agree fit it."""
    rng = np.random.default_rng(0)
    best = np.zeros(len(places), bool)
    for _ in range(200):
        chosen = rng.choice(len(places), 2, replace=False)
        if np.linalg.norm(places[chosen[0]] - places[chosen[1]]) < _BLOCK:
            continue
        near = _residuals(_fitted(places[chosen], offsets[chosen]), places, offsets) < _AGREEING
        if near.sum() > best.sum():
            best = near
    if best.sum() < 3:
        best[:] = True
    for _ in range(3):
        growth, shift = _fitted(places[best], offsets[best])
        best = _residuals((growth, shift), places, offsets) < _AGREEING
        if best.sum() < 3:
            break
    return Similarity(1 + growth, (float(shift[0]), float(shift[1])), float(best.mean()))


def _fitted(
    places: Float[np.ndarray, "blocks 2"], offsets: Float[np.ndarray, "blocks 2"]
) -> tuple[float, Float[np.ndarray, " 2"]]:
    """Growth and shift by least squares: offset = growth * place + shift."""
    middle, mean = places.mean(axis=0), offsets.mean(axis=0)
    spread = ((places - middle) ** 2).sum()
    growth = float(((places - middle) * (offsets - mean)).sum() / max(spread, 1e-9))
    return growth, mean - growth * middle


def _residuals(
    fit: tuple[float, Float[np.ndarray, " 2"]],
    places: Float[np.ndarray, "blocks 2"],
    offsets: Float[np.ndarray, "blocks 2"],
) -> Float[np.ndarray, " blocks"]:
    return np.linalg.norm(offsets - fit[0] * places - fit[1], axis=1)


def _grey(image: Float[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width"]:
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def _resized(image: Float[np.ndarray, "height width"], factor: float) -> Float[np.ndarray, "h w"]:
    if factor >= 1.0:
        return image
    size = (max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor)))
    return np.asarray(Image.fromarray(image.astype(np.float32)).resize(size, Image.Resampling.BOX))
