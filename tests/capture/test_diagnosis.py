"""One corruption of each kind: found under its own name, mended where transforms can mend it; sound captures are left alone."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy.spatial.transform import Rotation

from edit3dgs_ns.capture.diagnosis import diagnose
from edit3dgs_ns.capture.repair import write_repaired
from edit3dgs_ns.capture.transforms import SPLITS, readable_frames, transforms_path
from edit3dgs_ns.flame.loading import load_assets
from tests.command_line import edit3dgs
from tests.tiny_capture import TinyCapture, write_tiny_capture

ASSETS = load_assets()
OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> TinyCapture:
    """Three sequences of three timesteps from four cameras. Read only."""
    return write_tiny_capture(tmp_path_factory.mktemp("sound"), size=64, cameras=4, timesteps=3, samples=2)


@pytest.fixture
def capture(sound: TinyCapture, tmp_path: Path) -> Path:
    """A copy of the combined set's folder, with its sequences beside it."""
    shutil.copytree(sound.root, tmp_path / "capture")
    return tmp_path / "capture" / sound.union.name


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


MENDED: dict[str, tuple[str, Callable[[Path], None]]] = {
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
NAMED: dict[str, tuple[str, Callable[[Path], None]]] = {
    "premultiplied": ("premultiplied", lambda folder: with_alpha(folder, lambda rgb, a: rgb * a)),
    "on white already": (
        "on white already",
        lambda folder: with_alpha(folder, lambda rgb, a: rgb * a + 1 - a),
    ),
    "colour of a camera": ("colour of cameras", dark_camera),
    "elsewhere": ("unknown", looking_anywhere),
}


def test_there_are_enough_kinds() -> None:
    assert len({kind for kind, _ in [*MENDED.values(), *NAMED.values()]}) >= 14
    assert len({kind for kind, _ in MENDED.values()}) >= 10


@pytest.mark.parametrize("name", MENDED)
def test_a_fault_is_named_and_mended(name: str, capture: Path, sound: TinyCapture, tmp_path: Path) -> None:
    kind, corrupt = MENDED[name]
    corrupt(capture)
    before = {path: path.read_bytes() for path in capture.parent.rglob("*") if path.is_file()}
    found = diagnose(readable_frames(capture), ASSETS)
    assert [fault.kind for fault in found.faults] == [kind]
    out = write_repaired(capture, tmp_path / "out", found.repairs)
    assert diagnose(readable_frames(out), ASSETS).faults == []
    assert {path: path.read_bytes() for path in capture.parent.rglob("*") if path.is_file()} == before
    true = {f"{f.image.parent.parent.name}/{f.image.name}": f for f in readable_frames(sound.union)}
    mended = {f"{f.image.parent.parent.name}/{f.image.name}": f for f in readable_frames(out)}
    assert len(mended) == len(true) - (kind in ("blurred", "doubled"))
    for key, frame in mended.items():
        assert frame.timestep_index == true[key].timestep_index
        assert frame.mask is not None and frame.mask.name == frame.image.name
        if kind == "turned":
            continue
        pixels = frame.width / true[key].width
        np.testing.assert_allclose(frame.c2w[:3, :3], true[key].c2w[:3, :3], atol=1e-6)
        assert np.linalg.norm(frame.c2w[:3, 3] - true[key].c2w[:3, 3]) < (0.02 if kind == "shifted" else 1e-6)
        assert abs(frame.fx / pixels / true[key].fx - 1) < 0.06


@pytest.mark.parametrize("name", NAMED)
def test_a_fault_is_named(name: str, capture: Path) -> None:
    kind, corrupt = NAMED[name]
    corrupt(capture)
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == [kind]


def test_a_sound_capture_has_no_faults(sound: TinyCapture) -> None:
    assert diagnose(readable_frames(sound.union), ASSETS).faults == []


def with_hair_and_shoulders(folder: Path) -> None:
    """Brown hair around the head and a grey body below, both in the masks, neither in the mesh."""
    for path in images_of(folder):
        place = path.parent.parent / "fg_masks" / path.name
        mask = Image.open(place).convert("L")
        size = mask.width
        body = Image.new("L", mask.size, 0)
        body.paste(255, (size // 8, round(size * 0.8), size - size // 8, size))
        hair = mask.filter(ImageFilter.MaxFilter(13))
        image = Image.open(path).convert("RGB")
        image.paste((90, 60, 40), None, Image.composite(Image.new("L", mask.size, 0), hair, mask))
        image.paste((70, 75, 90), None, Image.composite(Image.new("L", mask.size, 0), body, mask))
        image.save(path)
        Image.fromarray(np.maximum(np.maximum(np.array(hair), np.array(body)), np.array(mask))).save(place)


def test_hair_and_shoulders_outside_of_the_mesh_are_no_fault(capture: Path) -> None:
    with_hair_and_shoulders(capture)
    assert diagnose(readable_frames(capture), ASSETS).faults == []


@pytest.mark.parametrize("name", ["focal length halved", "OpenCV axes", "cx unknown", "centimetres"])
def test_faults_are_found_with_hair_and_shoulders(name: str, capture: Path) -> None:
    kind, corrupt = MENDED[name]
    with_hair_and_shoulders(capture)
    corrupt(capture)
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == [kind]


def test_one_camera_is_only_noted(capture: Path) -> None:
    for split in SPLITS:
        path = transforms_path(capture, split)
        content = json.loads(path.read_text())
        content["frames"] = [entry for entry in content["frames"] if entry["camera_index"] == 2]
        path.write_text(json.dumps(content))
    found = diagnose(readable_frames(capture), ASSETS)
    assert found.faults == [] and any("one camera" in note for note in found.notes)


def test_the_doctor_mends(capture: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    focal(2.0)(capture)
    assert edit3dgs("doctor", "--data", capture) == 1
    assert "cameras have focal lengths 2" in capsys.readouterr().out
    out = tmp_path / "out"
    assert edit3dgs("doctor", "--data", capture, "--repair", out) == 0
    shown = capsys.readouterr().out
    assert (
        f"The mended capture is in {out}." in shown and "Mended: cameras that have focal lengths 2" in shown
    )
    assert edit3dgs("doctor", "--data", out) == 0
    assert edit3dgs("doctor", "--data", capture, "--repair", out) == 2


def test_training_warns_and_goes_on(capture: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast

    matrices(np.linalg.inv)(capture)
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.pipeline.datamanager.dataparser.data = capture
    config.print_to_terminal()
    assert "Warning:" in (shown := capfd.readouterr().out) and "cameras are world-to-camera" in shown


def test_images_of_a_head_that_stands_still_are_not_doubled(capture: Path) -> None:
    (first, second, *_) = [frame for frame in readable_frames(capture) if frame.image.stem.endswith("_01")]
    shutil.copyfile(first.image, second.image)
    assert first.flame is not None and second.flame is not None
    assert [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults] == ["doubled"]
    shutil.copyfile(first.flame, second.flame)
    assert "doubled" not in [fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults]


@pytest.mark.parametrize(
    "matrix", [np.zeros((4, 4)), np.diag([1e-20, 1e-20, 1e-20, 1]), np.full((4, 4), 1e30)]
)
def test_matrices_of_no_camera_end_nothing(matrix: np.ndarray, capture: Path) -> None:
    matrices(lambda old: matrix)(capture)
    assert {fault.kind for fault in diagnose(readable_frames(capture), ASSETS).faults} <= {"unknown"}
