"""Whatever is in an image file is read as what it means, or refused, and the doctor says the same as training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from edit3dgs_ns.capture.check import check_capture
from edit3dgs_ns.capture.driver import DriverImages
from edit3dgs_ns.capture.image_damage import decoded_problem, quick_problem
from edit3dgs_ns.capture.images import ImageProblem, read_header, read_image, read_mask
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.trained_run import Split
from edit3dgs_ns.training.dataset import AvatarDataset
from tests.tiny_capture import UNION, TinyCapture

HEIGHT, WIDTH = 5, 7
SIZE = (WIDTH, HEIGHT)
RAMP = np.linspace(0, 1, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
"""True brightness, whatever the file stores."""
COLOURS = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)


def levels(values: np.ndarray, white: int = 255) -> np.ndarray:
    dtype = np.uint8 if white == 255 else np.uint16
    return np.rint(values * white).astype(dtype)


def grey_16_big_endian(path: Path) -> None:
    Image.frombytes("I;16B", SIZE, levels(RAMP, 65535).astype(">u2").tobytes()).save(path)


FILES: dict[str, tuple[str, Callable[[Path], object], np.ndarray]] = {
    "8-bit grey": ("a.png", lambda path: Image.fromarray(levels(RAMP)).save(path), RAMP),
    "16-bit grey PNG": ("a.png", lambda path: Image.fromarray(levels(RAMP, 65535)).save(path), RAMP),
    "16-bit grey TIFF": ("a.tiff", lambda path: Image.fromarray(levels(RAMP, 65535)).save(path), RAMP),
    "16-bit grey TIFF, big-endian": ("a.tiff", grey_16_big_endian, RAMP),
    "float TIFF": ("a.tiff", lambda path: Image.fromarray(RAMP.astype(np.float32)).save(path), RAMP),
    "8-bit RGB": ("a.png", lambda path: Image.fromarray(levels(COLOURS)).save(path), COLOURS),
    "RGB TIFF": ("a.tiff", lambda path: Image.fromarray(levels(COLOURS)).save(path), COLOURS),
    "CMYK TIFF": ("a.tiff", lambda path: Image.fromarray(levels(COLOURS)).convert("CMYK").save(path), COLOURS),
    "1 bit": ("a.png", lambda path: Image.fromarray(RAMP > 0.5).save(path), (RAMP > 0.5).astype(float)),
    "palette": (
        "a.png",
        lambda path: Image.fromarray(levels(COLOURS)).convert("P", palette=Image.Palette.ADAPTIVE, colors=256).save(path),
        COLOURS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FILES)
def test_brightness_is_what_the_file_means(tmp_path: Path, kind: str) -> None:
    name, write, meant = FILES[kind]
    write(path := tmp_path / name)
    colour, alpha = read_image(path, SIZE)
    assert colour.shape == (HEIGHT, WIDTH, 3) and colour.dtype == np.uint8 and alpha is None
    expected = meant if meant.ndim == 3 else np.repeat(meant[:, :, None], 3, axis=2)
    np.testing.assert_allclose(colour / 255, expected, atol=0.51 / 255)
    assert quick_problem(path, SIZE) is None and decoded_problem(path, SIZE, "image") is None
    if meant.ndim == 2:
        np.testing.assert_allclose(read_mask(path, SIZE) / 255, meant, atol=0.51 / 255)


@given(arrays(np.uint16, (3, 4), elements=st.integers(0, 65535)))
def test_16_bits_are_rounded_to_the_nearest_of_8(
    tmp_path_factory: pytest.TempPathFactory, values: np.ndarray
) -> None:
    path = tmp_path_factory.mktemp("grey") / "a.png"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_image(path)[0][:, :, 0], np.rint(values / 65535 * 255))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RAMP.astype(np.float32) * 255, r"values from 0 to 255; expected 0 to 1"),
        (RAMP.astype(np.float32) - 0.1, r"values from -0\.1 to 0\.9; expected 0 to 1"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "not finite; expected 0 to 1"),
        (levels(RAMP).astype(np.int32), "32-bit integers"),
    ],
)
def test_values_without_a_meaning_are_refused(tmp_path: Path, values: np.ndarray, expected: str) -> None:
    path = tmp_path / "a.tiff"
    Image.fromarray(values).save(path)
    for read in (read_image, read_mask):
        with pytest.raises(ImageProblem, match=f"{path} .*{expected}"):
            read(path)
    for problem in (quick_problem(path, SIZE), decoded_problem(path, SIZE, "image")):
        with pytest.raises(ValueError, match=expected):
            raise ValueError(problem)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.tiff"])
def test_images_are_turned_as_exif_says(tmp_path: Path, name: str, orientation: int) -> None:
    """The upright image, stored as a camera held in one of eight ways stores it."""
    stored = {
        1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.transpose(1, 0, 2),
        6: np.rot90, 7: lambda a: np.rot90(a, 2).transpose(1, 0, 2), 8: lambda a: np.rot90(a, -1),
    }[orientation](levels(COLOURS))  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / name
    Image.fromarray(np.ascontiguousarray(stored)).save(path, exif=exif)
    np.testing.assert_array_equal(read_image(path, SIZE)[0], levels(COLOURS))
    assert read_header(path).size == SIZE
    assert quick_problem(path, SIZE) is None and decoded_problem(path, SIZE, "image") is None


def test_transparency_is_kept(tmp_path: Path) -> None:
    alpha = levels(RAMP.T.reshape(HEIGHT, WIDTH))
    path = tmp_path / "a.png"
    for mode, colour in (("RGBA", levels(COLOURS)), ("LA", np.repeat(levels(RAMP)[:, :, None], 3, axis=2))):
        pixels = np.dstack([colour if mode == "RGBA" else colour[:, :, 0], alpha])
        Image.fromarray(pixels, mode).save(path)
        found, coverage = read_image(path, SIZE)
        np.testing.assert_array_equal(found, colour)
        np.testing.assert_array_equal(coverage, alpha)
    for transparent, image in (
        (int(levels(RAMP)[0, 3]), Image.fromarray(levels(RAMP))),
        (int(levels(RAMP, 65535)[0, 3]), Image.fromarray(levels(RAMP, 65535))),
        (tuple(levels(COLOURS)[0, 3].tolist()), Image.fromarray(levels(COLOURS))),
    ):
        image.save(path, transparency=transparent)
        _, coverage = read_image(path, SIZE)
        np.testing.assert_array_equal(coverage == 0, RAMP[0, 3] == RAMP)


def test_masks_with_an_alpha_channel(tmp_path: Path) -> None:
    """Cut-out heads have it in the alpha channel; a grey mask that was saved as RGBA is opaque everywhere."""
    coverage, path = levels(RAMP), tmp_path / "a.png"
    Image.fromarray(np.dstack([levels(COLOURS), coverage])).save(path)
    np.testing.assert_array_equal(read_mask(path), coverage)
    Image.fromarray(np.dstack([coverage, coverage, coverage, np.full_like(coverage, 255)])).save(path)
    np.testing.assert_array_equal(read_mask(path), coverage)
    Image.fromarray((RAMP > 0.5).astype(np.uint8)).save(path)
    with pytest.raises(ImageProblem, match="values up to 1; expected 255"):
        read_mask(path)


@pytest.mark.parametrize("kind", ["16-bit grey PNG", "float TIFF", "16-bit grey TIFF"])
def test_training_driver_and_evaluation_read_alike(
    tiny_capture: TinyCapture, tmp_path: Path, kind: str
) -> None:
    """Grey captures of more than 8 bits, their masks too: brightness and coverage as in the capture of 8 bits."""
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    union = tmp_path / "capture" / UNION
    parsed = NersembleDataParserConfig(data=union).setup().get_dataparser_outputs("val")
    expected = []
    for path in (*parsed.image_filenames, *parsed.metadata["fg_mask_filenames"]):
        grey = np.asarray(Image.open(path).convert("L"))
        expected.append(grey)
        if kind == "float TIFF":
            deep = Image.fromarray(grey.astype(np.float32) / 255)
        else:
            deep = Image.fromarray(grey.astype(np.uint16) * 257)
        deep.save(path, format=kind.split()[-1])
    count = len(parsed.image_filenames)
    dataset = AvatarDataset(parsed)
    pictures = DriverImages(tuple(parsed.image_filenames), None)
    split = Split(parsed.cameras, np.zeros(count), dataset, parsed.metadata["fg_mask_filenames"])
    for index in range(count):
        for image in (dataset.get_numpy_image(index), pictures[index], split.image(index) * 255):
            np.testing.assert_allclose(image[:, :, 0], expected[index], atol=1e-4)
        np.testing.assert_allclose(split.mask(index) * 255, expected[count + index], atol=1e-4)
    assert check_capture(union, thorough=True).problems == []


def test_the_doctor_refuses_what_training_refuses(tiny_capture: TinyCapture, tmp_path: Path) -> None:
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    union = tmp_path / "capture" / UNION
    parsed = NersembleDataParserConfig(data=union).setup().get_dataparser_outputs("val")
    path = parsed.image_filenames[1]
    grey = np.asarray(Image.open(path).convert("L"))
    Image.fromarray(grey.astype(np.float32)).save(path, format="TIFF")
    (problem,) = check_capture(union).problems
    assert problem.where == str(path) and "expected 0 to 1" in problem.what
    with pytest.raises(UserError, match=f"{path} .*expected 0 to 1"):
        AvatarDataset(parsed).get_numpy_image(1)
