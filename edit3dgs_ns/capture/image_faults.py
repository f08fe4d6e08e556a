"""What can be wrong with the images and masks of a capture beside single damaged files: found, named, mended if possible."""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.capture.head_views import HeadView, background_of
from edit3dgs_ns.capture.images import read_image, read_mask
from edit3dgs_ns.capture.repair import Repair
from edit3dgs_ns.capture.transforms import FrameEntry
from edit3dgs_ns.flame.motion import FlameMotion

MOST_IMAGES = 400
"""Images whose sharpness is looked at."""
_WHITE = 0.96
_UNLIKE_MASK = 0.7
"""Least overlap of a mask with what stands out from the background."""
_SAME_MASK = 0.04
"""By this much the mask of the same name has to overlap more, before masks are taken for those of other frames."""
_BLURRED = 0.3
"""Of the median sharpness of the camera's images."""
_GAIN = 0.12
"""Difference of colour between cameras, as a share."""


@dataclass(frozen=True)
class ImageFault:
    """Something that is wrong with several images."""

    kind: str
    what: str
    advice: str = ""
    repair: Repair | None = None
    serious: bool = True
    """Training learns something wrong from it; otherwise it is only a little worse."""


def view_faults(views: Sequence[HeadView]) -> Iterator[ImageFault]:
    """Faults that a few views show."""
    for find in (_background, _alpha, _masks_of_others, _colour_of_cameras):
        fault = find(views)
        if fault is not None:
            yield fault


def frame_faults(frames: Sequence[FrameEntry]) -> Iterator[ImageFault]:
    """Faults that only many frames show: doubled and blurred ones, and timesteps out of order."""
    for find in (_doubled, _out_of_order, _blurred):
        fault = find(frames)
        if fault is not None:
            yield fault


# -- a few views ----------------------------------------------------------------------------------------------------------


def _background(views: Sequence[HeadView]) -> ImageFault | None:
    """Without masks, the background has to be white."""
    bare = [view for view in views if view.frame.mask is None and view.alpha is None]
    colours = [background_of(view.image) for view in bare]
    plain = [colour for colour in colours if colour is not None]
    if not bare or not plain or len(plain) < len(bare) / 2 or np.median(plain, axis=0).min() > _WHITE:
        return None
    colour = "#" + "".join(f"{round(255 * channel):02x}" for channel in np.median(plain, axis=0))
    repair = None
    if all(_mask_beside(view.frame.image) is not None for view in bare):
        repair = Repair(
            "named the masks in fg_masks/",
            lambda frame: frame if frame.mask is not None else replace(frame, mask=_mask_beside(frame.image)),
        )
    return ImageFault(
        "background",
        f"stand before {colour} and have no masks: the avatar would get a shell of that colour",
        "Training puts the head on white where it has masks: name them ('fg_mask_path'), or export the images on white.",
        repair,
    )


def _mask_beside(image: Path) -> Path | None:
    folder = image.parent.parent / "fg_masks"
    for path in (folder / image.name, folder / f"{image.stem}.png"):
        if path.is_file():
            return path
    return None


def _alpha(views: Sequence[HeadView]) -> ImageFault | None:
    """RGBA whose colours are not straight: multiplied by alpha, or composited over white already."""
    soft, colours = [], []
    for view in views:
        if view.alpha is None:
            continue
        pixels, alpha = read_image(view.frame.image)
        assert alpha is not None
        edge = (alpha > 8) & (alpha < 200)
        soft.append(alpha[edge].astype(int))
        colours.append(pixels[edge].astype(int))
    if not soft or sum(map(len, soft)) < 50:
        return None
    coverage, colour = np.concatenate(soft), np.concatenate(colours)
    advice = "Export them with straight alpha, or without an alpha channel and with masks."
    if (colour.max(axis=1) <= coverage + 3).mean() > 0.98:
        return ImageFault(
            "premultiplied", "are RGBA with colours multiplied by alpha: the head gets a dark rim", advice
        )
    if (colour.min(axis=1) >= 255 - coverage - 3).mean() > 0.98:
        return ImageFault(
            "on white already", "are RGBA with colours on white already: the head gets a light rim", advice
        )
    return None


def _masks_of_others(views: Sequence[HeadView]) -> ImageFault | None:
    """Masks that are not those of their images."""
    pairs = [
        (v, _overlap(v.foreground, v.own_foreground))
        for v in views
        if v.frame.mask and v.own_foreground is not None
    ]
    if len(pairs) < max(2, len(views) / 2):
        return None
    named = [
        (v, beside) for v, _ in pairs if (beside := _mask_beside(v.frame.image)) and beside != v.frame.mask
    ]
    now = float(np.mean([overlap for _, overlap in pairs]))
    if named:
        before = np.mean([_overlap(v.foreground, v.own_foreground) for v, _ in named])
        after = np.mean([_overlap(_small_mask(path, v), v.own_foreground) for v, path in named])
        if after > before + _SAME_MASK:
            repair = Repair("gave each image the mask of its own name", _with_own_mask)
            what = f"are those of other images: they overlap {before:.0%} with what stands out from the background"
            return ImageFault("masks", what, "Name the mask of each frame.", repair)
    if now < _UNLIKE_MASK and _head_says_so([view for view, _ in pairs]):
        what = (
            f"are not those of their images: they overlap {now:.0%} with what stands out from the background"
        )
        return ImageFault("masks", what, "Export them again.")
    return None


def _head_says_so(views: Sequence[HeadView]) -> bool:
    """Whether the posed head lies on what stands out from the background, and not on the masks."""
    heads = [view.silhouette(view.camera).astype(np.float32) for view in views]
    on_masks = np.mean([_overlap(v.foreground, head) for v, head in zip(views, heads, strict=True)])
    on_own = np.mean([_overlap(head, v.own_foreground) for v, head in zip(views, heads, strict=True)])
    return bool(on_own > on_masks + 0.1)


def _with_own_mask(frame: FrameEntry) -> FrameEntry:
    beside = _mask_beside(frame.image)
    return frame if beside is None or frame.mask is None else replace(frame, mask=beside)


def _small_mask(path: Path, view: HeadView) -> Float[np.ndarray, "h w"]:
    h, w = view.foreground.shape
    small: np.ndarray = cv2.resize(read_mask(path), (w, h), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32) / 255


def _overlap(a: Float[np.ndarray, "h w"], b: Float[np.ndarray, "h w"] | None) -> float:
    assert b is not None
    return float(np.minimum(a, b).sum() / max(float(np.maximum(a, b).sum()), 1.0))


def _colour_of_cameras(views: Sequence[HeadView]) -> ImageFault | None:
    """Brightness or tint that differs between cameras, on surface points that several of them see."""
    which = np.arange(0, len(views[0].head.vertices), 4)
    by_camera: dict[int, list[np.ndarray]] = defaultdict(list)
    for view in views:
        colour, seen = view.colours(view.camera, which)
        towards = view.camera.c2w[:3, 3] - view.head.vertices[which]
        facing = (view.head.normals[which] * towards).sum(1) > 0.6 * np.linalg.norm(towards, axis=1)
        inside = seen & facing & (colour.min(axis=1) > 0.02) & (colour.max(axis=1) < 0.98)
        by_camera[view.frame.camera_index].append(
            np.where(inside[:, None], np.log(np.maximum(colour, 1e-3)), np.nan)
        )
    if len(by_camera) < 3:
        return None
    numbers = sorted(by_camera)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # points that no camera sees
        logs = np.stack([_nanmean(by_camera[number]) for number in numbers])
        shared = np.isfinite(logs).sum(0) >= 3
        middle = np.nanmedian(np.where(shared, logs, np.nan), axis=0)
        gains = np.array(
            [np.nanmedian((one - middle)[np.isfinite(one - middle).all(1)], axis=0) for one in logs]
        )
    off = [
        (number, gain) for number, gain in zip(numbers, gains, strict=True)
        if np.isfinite(gain).all() and np.abs(gain).max() > _GAIN
    ]  # fmt: skip
    if not off or len(off) > len(numbers) / 2:
        return None
    listing = "; ".join(
        f"camera {number}: "
        + ", ".join(f"{n} {g:+.0%}" for n, g in zip(("red", "green", "blue"), np.expm1(gain), strict=True))
        for number, gain in off[:4]
    )
    advice = "Calibrate the cameras' colours: an avatar learns their mean, and a seam between them."
    return ImageFault(
        "colour of cameras", f"differ in colour between cameras ({listing})", advice, serious=False
    )


def _nanmean(rows: Sequence[np.ndarray]) -> np.ndarray:
    stacked = np.stack(rows)
    count = np.isfinite(stacked).sum(0)
    mean: np.ndarray = np.where(count > 0, np.nansum(stacked, axis=0) / np.maximum(count, 1), np.nan)
    return mean


# -- many frames ----------------------------------------------------------------------------------------------------------


def _doubled(frames: Sequence[FrameEntry]) -> ImageFault | None:
    """Images of one camera that are the same file, for head parameters that are not."""
    alike: dict[tuple[int, int], list[FrameEntry]] = defaultdict(list)
    for frame in {f.image: f for f in frames}.values():
        if frame.image.is_file():
            alike[frame.camera_index, frame.image.stat().st_size].append(frame)
    doubled: set[Path] = set()
    for group in alike.values():
        first: dict[bytes, FrameEntry] = {}
        for frame in sorted(group, key=lambda f: f.timestep_index) if len(group) > 1 else ():
            digest = hashlib.sha256(frame.image.read_bytes()).digest()
            other = first.setdefault(digest, frame)
            if other is not frame and _parameters_differ(other, frame):
                doubled.add(frame.image)
    if not doubled:
        return None
    what = f"are doubled: {len(doubled)} show what an earlier one of their camera shows, as {min(doubled)}"
    repair = Repair(
        f"left out {len(doubled)} doubled images", lambda frame: None if frame.image in doubled else frame
    )
    return ImageFault("doubled", what, "Leave them out, or export them again.", repair)


def _parameters_differ(a: FrameEntry, b: FrameEntry) -> bool:
    if a.flame is None or b.flame is None:
        return False
    try:
        return _distance(_row_of(a), _row_of(b)) > 1e-4
    except (OSError, ValueError, IndexError):
        return False


def _row_of(frame: FrameEntry) -> torch.Tensor:
    """The parameters of a frame: those of its own file, or its row in that of all timesteps."""
    assert frame.flame is not None
    motion = FlameMotion.load(frame.flame)
    return _row(motion, 0 if len(motion) == 1 else frame.timestep_index)


def _row(motion: FlameMotion, row: int = 0) -> torch.Tensor:
    return torch.cat([motion.rotation[row], motion.translation[row], motion.jaw_pose[row], motion.expr[row]])


def _distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm()) if len(a) == len(b) else float("inf")


def _out_of_order(frames: Sequence[FrameEntry]) -> ImageFault | None:
    """Timesteps whose numbers go another way than those of the files, unless the motion clearly follows the timesteps."""
    sequences: dict[Path, dict[int, FrameEntry]] = defaultdict(dict)
    for frame in frames:
        if frame.image.stem.partition("_")[0].isdigit():
            sequences[frame.image.parent].setdefault(frame.timestep_index, frame)
    moved: dict[tuple[Path, int], int] = {}
    for folder, steps in sequences.items():
        indices = sorted(steps)
        numbers = [int(steps[i].image.stem.partition("_")[0]) for i in indices]
        if len(set(numbers)) < len(numbers) or numbers == sorted(numbers):
            continue
        order = [index for _, index in sorted(zip(numbers, indices, strict=True))]
        if _path_length([steps[i] for i in order]) < 1.6 * _path_length([steps[i] for i in indices]):
            moved |= {(folder, old): new for old, new in zip(order, indices, strict=True) if old != new}
    if not moved:
        return None
    repair = Repair(
        f"put {len(moved)} timesteps in the order of their files",
        lambda f: replace(f, timestep_index=moved.get((f.image.parent, f.timestep_index), f.timestep_index)),
    )
    what = f"are out of order: {len(moved)} timesteps are not where the numbers of their files and the motion put them"
    return ImageFault("order", what, "Number timestep_index in the order of time.", repair)


def _path_length(frames: Sequence[FrameEntry]) -> float:
    try:
        rows = [_row(FlameMotion.load_frame(f.flame)) for f in frames if f.flame is not None]
    except (OSError, ValueError):
        return 0.0
    return sum(_distance(a, b) for a, b in pairwise(rows))


def _blurred(frames: Sequence[FrameEntry]) -> ImageFault | None:
    """Images that are much less sharp than those of the same camera."""
    unique = list({f.image: f for f in frames}.values())
    sharpness: dict[int, dict[Path, float]] = defaultdict(dict)
    for frame in unique[:: max(len(unique) // MOST_IMAGES, 1)]:
        if (value := _sharpness(frame)) is not None:
            sharpness[frame.camera_index][frame.image] = value
    blurred = {path for own in sharpness.values() for path in _far_below(own)}
    if not blurred:
        return None
    what = f"are blurred: {len(blurred)} have less than {_BLURRED:.0%} of the sharpness of their camera's others, as {min(blurred)}"
    repair = Repair(
        f"left out {len(blurred)} blurred images", lambda frame: None if frame.image in blurred else frame
    )
    return ImageFault(
        "blurred", what, "Leave them out: the avatar becomes as soft as they are.", repair, serious=False
    )


def _sharpness(frame: FrameEntry) -> float | None:
    """Mean square of the Laplacian."""
    try:
        pixels, _ = read_image(frame.image)
    except (OSError, ValueError):
        return None
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return float((cv2.Laplacian(grey, cv2.CV_32F) ** 2).mean())


def _far_below(values: Mapping[Path, float]) -> list[Path]:
    if len(values) < 3:
        return []
    middle = float(np.median(list(values.values())))
    return [path for path, value in values.items() if value < _BLURRED * middle]
