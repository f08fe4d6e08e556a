"""Frames of videos as phones and editors write them."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.tracking.video import VideoPart, describe_video, read_frames

WIDTH, HEIGHT = 64, 48


def grey(number: int) -> np.ndarray:
    """A frame that says its number by its brightness; red at the top left."""
    frame = np.full((HEIGHT, WIDTH, 3), 10 + 6 * number, np.uint8)
    frame[: HEIGHT // 2, : WIDTH // 2] = (255, 0, 0)
    return frame


def number_of(frame: np.ndarray) -> int:
    """The inverse of `grey`, from the lower right (unturned)."""
    return round((float(frame[-8:, -8:].mean()) - 10) / 6)


def write(path: Path, times: list[int], base: Fraction = Fraction(1, 1000)) -> Path:
    """A video whose frames are shown at `times` (in units of `base` seconds)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "4", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        stream.codec_context.time_base = base
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(grey(number), format="rgb24")
            frame.pts, frame.time_base = time, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def ffmpeg(*words: object) -> None:
    # The bundled one: releases before 6 cannot write how a video is turned.
    subprocess.run(
        [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, words)], check=True
    )


def even(frames: int, fps: float = 30) -> list[int]:
    return [round(1000 * n / fps) for n in range(frames)]


def test_an_even_video_comes_frame_by_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "even.mp4", even(30))
    info = describe_video(path)
    assert (info.width, info.height) == (WIDTH, HEIGHT) and info.fps == pytest.approx(30, rel=0.01)
    assert [number_of(frame) for frame in read_frames(describe_video(path))] == list(range(30))


def test_uneven_times_are_sampled_on_an_even_clock(tmp_path: Path) -> None:
    """Each tick takes the frame that is nearest in time: told from the times alone."""
    rng = np.random.default_rng(0)
    times = [0, *np.cumsum(rng.integers(15, 90, 35)).tolist()]
    path = write(tmp_path / "uneven.mp4", times)
    fps = 20.0
    found = [number_of(frame) for frame in read_frames(describe_video(path, VideoPart(fps=fps)))]
    seconds = np.array(times) / 1000
    ticks = np.arange(len(found)) / fps
    distance = np.abs(seconds[found] - ticks)
    assert (distance <= np.abs(seconds[None] - ticks[:, None]).min(1) + 2e-3).all()
    assert ticks[-1] >= seconds[-1] - 1 / fps, "to the end"


def test_a_part_of_a_video(tmp_path: Path) -> None:
    path = write(tmp_path / "even.mp4", even(30))
    assert [number_of(f) for f in read_frames(describe_video(path, VideoPart(start=0.5, end=0.9)))] == list(
        range(15, 27)
    )
    assert [number_of(f) for f in read_frames(describe_video(path, VideoPart(fps=10)))] == list(
        range(0, 30, 3)
    )


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_phone_held_upright_writes_a_turned_video(degrees: int, tmp_path: Path) -> None:
    """ffmpeg turns by its own code what it decodes: the oracle."""
    plain = write(tmp_path / "plain.mp4", even(12))
    turned, upright = tmp_path / "turned.mp4", tmp_path / "upright.mp4"
    ffmpeg("-display_rotation", degrees, "-i", plain, "-c", "copy", turned)
    ffmpeg("-i", turned, "-crf", 4, "-pix_fmt", "yuv444p", upright)
    expected, found = next(read_frames(describe_video(upright))), next(read_frames(describe_video(turned)))
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 4
    info = describe_video(turned)
    assert (info.height, info.width) == found.shape[:2]


def test_ten_bits_are_read_and_hdr_is_said(tmp_path: Path) -> None:
    plain, hdr = write(tmp_path / "plain.mp4", even(12)), tmp_path / "hdr.mp4"
    color = ("-color_trc", "arib-std-b67", "-color_primaries", "bt2020", "-colorspace", "bt2020nc")
    ffmpeg(
        "-i",
        plain,
        "-c:v",
        "libx265",
        "-pix_fmt",
        "yuv420p10le",
        *color,
        "-x265-params",
        "log-level=error:transfer=arib-std-b67:colorprim=bt2020:colormatrix=bt2020nc",
        hdr,
    )
    assert next(read_frames(describe_video(hdr))).dtype == np.uint8
    assert any("HDR video (HLG)" in note for note in describe_video(hdr).notes)
    assert describe_video(plain).notes == ()


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "voice.m4a"
    ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", path)
    with pytest.raises(UserError, match=r"voice\.m4a: holds no images, only audio"):
        describe_video(path)


def test_a_still_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "me.png"
    Image.fromarray(grey(3)).save(path)
    with pytest.raises(UserError, match=r"me\.png: is a still image"):
        describe_video(path)


def test_a_video_that_is_too_short(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 2 frames\. A head is tracked in at least 10 frames"):
        describe_video(write(tmp_path / "two.mp4", even(2)))
    with pytest.raises(UserError, match=r"has 3 frames with --start 0\.5 --end 0\.6\. A head"):
        describe_video(write(tmp_path / "me.mp4", even(30)), VideoPart(start=0.5, end=0.6))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [("notes.txt", b"hello", "cannot be read as a video"), ("empty.mp4", b"", "cannot be read as a video")],
)
def test_other_files_are_named(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: {message}"):
        describe_video(tmp_path / name)
    with pytest.raises(MissingFileError, match="nowhere"):
        describe_video(tmp_path / "nowhere.mp4")


def test_a_video_that_was_cut_off_says_where(tmp_path: Path) -> None:
    path = tmp_path / "cut.mkv"
    write(path, even(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    frames = [number_of(frame) for frame in read_frames(describe_video(path))]
    assert 0 < len(frames) <= 30 and frames == list(range(len(frames)))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (VideoPart(start=-1), "--start -1"),
        (VideoPart(start=2, end=1), "--end 1"),
        (VideoPart(fps=0), "--fps 0"),
        (VideoPart(start=5), "--start 5: .* ends after 1.0 seconds"),
    ],
)
def test_parts_that_cannot_be(part: VideoPart, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "even.mp4", even(30))
    with pytest.raises(UserError, match=message):
        describe_video(path, part)


def test_a_folder_of_frames(tmp_path: Path) -> None:
    for number in range(12):
        Image.fromarray(grey(number)).save(tmp_path / f"{number:03d}.png")
    assert [number_of(frame) for frame in read_frames(describe_video(tmp_path))] == list(range(12))
    info = describe_video(tmp_path)
    assert info.frames == 12 and "taken as 25 frames a second" in info.notes[0]
    Image.fromarray(grey(0)[:20]).save(tmp_path / "005.png")
    with pytest.raises(UserError, match=r"005\.png: is 64 x 20 pixels, 000\.png is 64 x 48"):
        list(read_frames(describe_video(tmp_path)))


def test_an_empty_folder_and_a_short_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no images"):
        describe_video(tmp_path)
    Image.fromarray(grey(0)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match="holds 1 images"):
        describe_video(tmp_path)


def test_frames_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """As ffmpeg's %d.png names them: 2 comes before 10."""
    for number in range(12):
        Image.fromarray(grey(number)).save(tmp_path / f"{number + 1}.png")
    assert [number_of(frame) for frame in read_frames(describe_video(tmp_path))] == list(range(12))
    with pytest.raises(UserError, match=r"--start 50: .* ends after 0\.5 seconds"):
        describe_video(tmp_path, VideoPart(start=50))
