"""Captures with a fault of each kind: what the doctor has to find, and what it has to mend."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter
from scipy.spatial.transform import Rotation

from edit3dgs_ns.capture.transforms import SPLITS, readable_frames, transforms_path

OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


def images_of(folder: Path) -> list[Path]:
    return sorted({frame.image for frame in readable_frames(folder)})


def each_entry(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    for split in SPLITS:
        path = transforms_path(folder, split)
        content = json.loads(path.read_text())
        for entry in content["frames"]:
            change(entry)
        path.write_text(json.dumps(content))


def each_image(
    folder: Path,
    change: Callable[[Image.Image, Image.Image], Image.Image],
    keep: Callable[[Path], bool] = lambda path: True,
) -> None:
    """Replaces images by what `change` makes of them and their masks."""
    for path in filter(keep, images_of(folder)):
        mask = Image.open(path.parent.parent / "fg_masks" / path.name).convert("L")
        change(Image.open(path).convert("RGB"), mask).save(path)


# -- corruptions of cameras -----------------------------------------------------------------------------------------------


def matrices(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        def entry_changed(entry: dict[str, Any]) -> None:
            entry["transform_matrix"] = change(np.array(entry["transform_matrix"])).tolist()

        each_entry(folder, entry_changed)

    return corrupt


def looking_anywhere(folder: Path) -> None:
    """Every camera has another rotation."""
    rotations = Rotation.random(4, random_state=5).as_matrix()

    def entry_changed(entry: dict[str, Any]) -> None:
        matrix = np.array(entry["transform_matrix"])
        matrix[:3, :3] = rotations[entry["camera_index"]]
        entry["transform_matrix"] = matrix.tolist()

    each_entry(folder, entry_changed)


def positions(scale: float = 1.0, shift: tuple[float, float, float] = (0, 0, 0)) -> Callable[[Path], None]:
    def change(matrix: np.ndarray) -> np.ndarray:
        changed = matrix.copy()
        changed[:3, 3] = changed[:3, 3] * scale + shift
        return changed

    return matrices(change)


def focal(factor: float) -> Callable[[Path], None]:
    def entry_changed(entry: dict[str, Any]) -> None:
        entry["fl_x"], entry["fl_y"] = entry["fl_x"] * factor, entry["fl_y"] * factor

    return lambda folder: each_entry(folder, entry_changed)


def panned_images(cx: float, cy: float, tell: str | None) -> Callable[[Path], None]:
    """Moves all images and masks by pixels; the transforms get the new principal point, from the `tell` edge."""

    def corrupt(folder: Path) -> None:
        for path in images_of(folder):
            for file, fill in ((path, 255), (path.parent.parent / "fg_masks" / path.name, 0)):
                image = Image.open(file)
                moved = Image.new(image.mode, image.size, (fill,) * 3 if image.mode == "RGB" else fill)
                moved.paste(image, (round(cx), round(cy)))
                moved.save(file)

        def entry_changed(entry: dict[str, Any]) -> None:
            if tell is not None:
                y = entry["h"] / 2 + cy
                entry["cx"], entry["cy"] = entry["w"] / 2 + cx, y if tell == "top" else entry["h"] - y

        each_entry(folder, entry_changed)

    return corrupt


def turned_images(quarters: int) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        for path in images_of(folder):
            for file in (path, path.parent.parent / "fg_masks" / path.name):
                Image.fromarray(np.rot90(np.array(Image.open(file)), quarters)).save(file)

    return corrupt


def larger_images(folder: Path) -> None:
    for path in images_of(folder):
        for file in (path, path.parent.parent / "fg_masks" / path.name):
            image = Image.open(file)
            image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC).save(file)


# -- corruptions of images ------------------------------------------------------------------------------------------------


def without_masks_on(colour: tuple[int, int, int]) -> Callable[[Path], None]:
    def corrupt(folder: Path) -> None:
        each_image(
            folder, lambda image, mask: Image.composite(image, Image.new("RGB", image.size, colour), mask)
        )
        each_entry(folder, lambda entry: entry.pop("fg_mask_path"))

    return corrupt


def with_alpha(folder: Path, how: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> None:
    """RGBA images with a soft edge; `how` gets straight colours and coverage, both in [0, 1]."""

    def change(image: Image.Image, mask: Image.Image) -> Image.Image:
        alpha = np.array(mask.filter(ImageFilter.GaussianBlur(2)), np.float64)[..., None] / 255
        rgb = how(np.array(image, np.float64) / 255 * 0.9, alpha)
        return Image.fromarray(np.rint(np.concatenate([rgb, alpha], axis=2) * 255).astype(np.uint8), "RGBA")

    each_image(folder, change)
    each_entry(folder, lambda entry: entry.pop("fg_mask_path"))


def other_masks(folder: Path) -> None:
    """Each frame names the mask of the next camera."""

    def entry_changed(entry: dict[str, Any]) -> None:
        head, _, name = entry["fg_mask_path"].rpartition("/")
        timestep, camera = name.removesuffix(".png").split("_")
        entry["fg_mask_path"] = f"{head}/{timestep}_{(int(camera) + 2) % 4:02d}.png"

    each_entry(folder, entry_changed)


def dark_camera(folder: Path) -> None:
    each_image(
        folder,
        lambda image, mask: Image.composite(image.point(lambda v: round(v * 0.75)), image, mask),
        lambda path: path.stem.endswith("_03"),
    )


def blurred_image(folder: Path) -> None:
    each_image(
        folder,
        lambda image, mask: image.filter(ImageFilter.GaussianBlur(3)),
        lambda path: path == images_of(folder)[5],
    )


def doubled_image(folder: Path) -> None:
    (first, second, *_) = [path for path in images_of(folder) if path.stem.endswith("_01")]
    shutil.copyfile(first, second)


def shuffled_timesteps(folder: Path) -> None:
    order = {0: 0, 1: 2, 2: 1, 3: 4, 4: 3, 5: 5, 6: 6, 7: 7, 8: 8}
    each_entry(folder, lambda entry: entry.update(timestep_index=order[entry["timestep_index"]]))


Corruption = tuple[str, Callable[[Path], None]]
"""The kind of fault that the doctor has to name, and what puts it into the folder of a capture."""
MENDED: dict[str, Corruption] = {
    "millimetres": ("unit", positions(1000.0)),
    "centimetres": ("unit", positions(100.0)),
    "tenfold": ("unit", positions(0.1)),
    "focal length halved": ("focal length", focal(0.5)),
    "focal length doubled": ("focal length", focal(2.0)),
    "focal length 1.4": ("focal length", focal(1.4)),
    "world-to-camera": ("inverted", matrices(np.linalg.inv)),
    "OpenCV axes": ("axes", matrices(lambda m: m @ OPENCV)),
    "OpenCV extrinsics": ("inverted and axes", matrices(lambda m: np.linalg.inv(m @ OPENCV))),
    "mirrored": ("mirrored", matrices(lambda m: m @ np.diag([-1.0, 1, 1, 1]))),
    "shifted": ("shifted", positions(shift=(0.5, 0.1, 0.0))),
    "cy from top": ("cy from top", panned_images(0, 9, "top")),
    "cy from bottom": ("cy from bottom", panned_images(0, 9, "bottom")),
    "cx unknown": ("principal point", panned_images(9, 0, None)),
    "turned": ("turned", turned_images(1)),
    "upside down": ("turned", turned_images(2)),
    "twice the size": ("image size", larger_images),
    "black background": ("background", without_masks_on((0, 0, 0))),
    "green background": ("background", without_masks_on((0, 177, 64))),
    "masks of others": ("masks", other_masks),
    "blurred": ("blurred", blurred_image),
    "doubled": ("doubled", doubled_image),
    "order": ("order", shuffled_timesteps),
}  # fmt: skip
"""Those that other transforms can mend, by name."""
NAMED: dict[str, Corruption] = {
    "premultiplied": ("premultiplied", lambda folder: with_alpha(folder, lambda rgb, a: rgb * a)),
    "on white already": (
        "on white already",
        lambda folder: with_alpha(folder, lambda rgb, a: rgb * a + 1 - a),
    ),
    "colour of a camera": ("colour of cameras", dark_camera),
    "elsewhere": ("unknown", looking_anywhere),
}
"""Those that can only be named."""
