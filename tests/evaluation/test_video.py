"""Videos decode to what was written, and a broken-off one leaves nothing behind."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import numpy as np
import pytest

from edit3dgs_ns.evaluation.video import OverlappedWriter, VideoWriter


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_frames_come_back_in_order_and_colour(tmp_path: Path) -> None:
    colours = [(0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.1, 0.9), (1.0, 1.0, 1.0)]
    path = tmp_path / "new" / "v.mp4"
    with VideoWriter(path, fps=12) as video:
        for colour in colours:
            video.add(np.broadcast_to(np.array(colour, np.float32), (32, 48, 3)))
    frames = decode(path)
    assert len(frames) == len(colours)
    for frame, colour in zip(frames, colours, strict=True):
        assert frame.shape == (32, 48, 3)
        assert np.abs(frame.mean(axis=(0, 1)) / 255 - colour).max() < 0.03
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 12
        assert stream.codec_context.pix_fmt == "yuv420p"


def test_odd_sizes_are_padded(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4") as video:
        video.add(np.full((33, 31, 3), 0.5, np.float32))
    assert decode(tmp_path / "v.mp4")[0].shape == (34, 32, 3)


def test_an_error_leaves_the_old_video_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="frames are"), VideoWriter(path) as video:
        video.add(np.zeros((32, 32, 3), np.float32))
        video.add(np.zeros((16, 32, 3), np.float32))
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_a_video_without_frames_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without frames"), VideoWriter(tmp_path / "v.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_encoding_overlaps_and_keeps_the_order(tmp_path: Path) -> None:
    """Frames are drawn on another thread: the third can be handed over while the first is still being drawn."""
    handed_over, threads = threading.Event(), set()

    def draw(shade: float) -> np.ndarray:
        assert handed_over.wait(timeout=60)
        threads.add(threading.current_thread())
        return np.full((32, 32, 3), round(255 * shade), np.uint8)

    shades = [0.2, 0.5, 0.8]
    with VideoWriter(tmp_path / "v.mp4") as video, OverlappedWriter(video, draw) as frames:
        for shade in shades:
            frames.add(shade)
        handed_over.set()
    assert threading.current_thread() not in threads and len(threads) == 1
    assert [round(frame.mean() / 255, 1) for frame in decode(tmp_path / "v.mp4")] == shades


@pytest.mark.parametrize("where", ["drawing", "rendering"])
def test_an_error_on_either_side_ends_both_and_leaves_nothing(tmp_path: Path, where: str) -> None:
    def draw(number: int) -> np.ndarray:
        if where == "drawing" and number == 1:
            raise RuntimeError("no colours left")
        return np.zeros((32, 32, 3), np.uint8)

    before = set(threading.enumerate())
    with (
        pytest.raises(RuntimeError, match="no colours left"),
        VideoWriter(tmp_path / "v.mp4") as video,
        OverlappedWriter(video, draw) as frames,
    ):
        for number in range(100):  # far more than may wait
            if where == "rendering" and number == 7:
                raise RuntimeError("no colours left")
            frames.add(number)
    assert list(tmp_path.iterdir()) == [] and set(threading.enumerate()) <= before
