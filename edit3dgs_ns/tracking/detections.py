"""Landmarks of a whole video, and the file that keeps them."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.tracking.detector import NUM_LANDMARKS, OUTER_EYE_CORNERS, FaceDetector
from edit3dgs_ns.tracking.fit import LEAST_FACES
from edit3dgs_ns.tracking.identity import SIDE, changes_of_person, head_thumbnail, inside_frame
from edit3dgs_ns.tracking.orientation import LOOKED_AT, check_upright
from edit3dgs_ns.tracking.output import LANDMARKS_FILE
from edit3dgs_ns.tracking.parallel import read_ahead
from edit3dgs_ns.tracking.video import VideoInfo, read_frames

Progress = Callable[[str, int, int], None]
"""(what is done, frames done, frames in all)"""
LARGEST_JUMP = 0.5
"""Of the face's size from one frame to the next: more is a cut, or another face."""

OUTSIDE = 0.1
"""Share of the landmarks that may lie beyond the image's edge."""


@dataclass(frozen=True)
class Detections:
    """Landmarks of a whole video, in pixels of its frames."""

    landmarks: Float[np.ndarray, "T 478 2"]
    """Zeros where no face was found."""
    found: Bool[np.ndarray, " T"]
    """Frames that are used: with a face, as a whole."""
    most_faces: int
    thumbnails: UInt8[np.ndarray, "T 24 24 3"] | None = None
    """The head in every frame, black without one (`identity`); None in files of earlier versions."""

    @property
    def cut_off(self) -> Bool[np.ndarray, " T"]:
        """Frames that are left out as the image's edge cuts the face off."""
        return ~self.found & self.landmarks.any(axis=(1, 2))

    @property
    def eye_distance(self) -> float:
        """Between the outer corners, the median over the frames: pixels."""
        corners = self.landmarks[self.found][:, OUTER_EYE_CORNERS]
        return float(np.median(np.linalg.norm(corners[:, 0] - corners[:, 1], axis=1)))


def detect_video(video: VideoInfo, progress: Progress) -> Detections:
    """Landmarks of every frame.

    Raises:
        UserError: the faces are not upright.
    """
    looked_at: list[np.ndarray] = []
    step = max(1, (video.frames or LOOKED_AT * 15) // LOOKED_AT)

    def frames() -> Iterator[np.ndarray]:
        for number, frame in enumerate(read_frames(video)):
            if number % step == 0 and len(looked_at) < LOOKED_AT:
                looked_at.append(frame)
            yield frame

    found = detect_frames(frames(), lambda done: progress("Finding the face", done, video.frames or 0))
    check_upright(video.path, looked_at)
    return found


def detect_frames(frames: Iterable[np.ndarray], done: Callable[[int], None]) -> Detections:
    """Landmarks of the consecutive frames of one camera.

    Args:
        frames: RGB, all of one size.
        done: is told how many frames are done, after each.
    """
    landmarks, found, most = [], [], 0
    thumbnails = []
    with FaceDetector() as detector:
        for number, frame in enumerate(read_ahead(frames)):
            face = detector.detect(frame)
            most = max(most, detector.faces)
            landmarks.append(np.zeros((NUM_LANDMARKS, 2)) if face is None else face)
            found.append(face is not None)
            thumbnails.append(
                np.zeros((SIDE, SIDE, 3), np.uint8) if face is None else head_thumbnail(frame, face)
            )
            done(number + 1)
    # As they are kept in the file: going on gives the same bits.
    kept = np.array(landmarks, np.float32).astype(np.float64)
    return Detections(kept, np.array(found), most, np.array(thumbnails))


def whole_faces(detections: Detections, width: int, height: int) -> Detections:
    """Leaves out the frames in which more of the face than `OUTSIDE` is beyond the image's edge: it was guessed there."""
    x, y = np.moveaxis(detections.landmarks, 2, 0)
    outside = (x < 0) | (x > width) | (y < 0) | (y > height)
    return replace(detections, found=detections.found & (outside.mean(axis=1) <= OUTSIDE))


def left_out_notes(detections: Detections) -> list[str]:
    """What is said of the frames that are left out."""
    cut_off, count = int(detections.cut_off.sum()), len(detections.found)
    faceless = count - int(detections.found.sum()) - cut_off
    notes = [f"{faceless} of {count} frames show no face and are left out."] if faceless else []
    if cut_off:
        notes.append(f"In {cut_off} of {count} frames the image's edge cuts the face off: they are left out.")
    return notes


def person_notes(detections: Detections, video: VideoInfo) -> list[str]:
    """What is said where the video seems to go on with another person."""
    if detections.thumbnails is None:
        return []
    inside = inside_frame(detections.landmarks, detections.found, video.width, video.height)
    changes = changes_of_person(detections.thumbnails, detections.found, inside)
    if not changes:
        return []
    seconds = ", ".join(f"{frame / video.fps:.1f}" for frame in changes[:5])
    return [
        f"At {seconds} s the head looks like another person's, or the light changes at once. One avatar is of one person: choose "
        "one shot with --start and --end."
    ]


def check_detections(detections: Detections, video: VideoInfo) -> None:
    """Refuse what no head can be fitted to.

    Raises:
        UserError: too few frames show a face, or the face jumps as at a cut.
    """
    count, found = len(detections.found), int(detections.found.sum())
    if not found and not detections.cut_off.any():
        raise UserError(
            f"{video.path}: no face was found in {count} frames. Is it upright, near enough and lit?"
        )
    if found < LEAST_FACES:
        cut_off = " ".join(["", *left_out_notes(detections)]) if detections.cut_off.any() else ""
        raise UserError(
            f"{video.path}: a face was found in {found} of {count} frames; at least {LEAST_FACES} are needed.{cut_off}"
        )
    shown = np.flatnonzero(detections.found)
    faces = detections.landmarks[shown]
    size = (faces.max(1) - faces.min(1)).max(1)
    moved = np.linalg.norm(np.diff(faces.mean(1), axis=0), axis=1) / size[1:]
    consecutive = np.diff(shown) == 1
    cuts = np.flatnonzero((moved > LARGEST_JUMP) & consecutive)
    if len(cuts):
        seconds = ", ".join(f"{(shown[cut] + 1) / video.fps:.1f}" for cut in cuts[:5])
        raise UserError(
            f"{video.path}: is cut at {seconds} s (the face jumps by half its size). One shot makes one avatar: choose one with "
            "--start and --end."
        )


def read_detections(out: Path, name: str = LANDMARKS_FILE) -> Detections | None:
    """What was found in the video that a folder was tracked from; None if it is not there or damaged."""
    try:
        with np.load(out / name, allow_pickle=False) as file:
            kept = Detections(
                file["landmarks"].astype(np.float64),
                file["found"],
                int(file["most_faces"]),
                file["thumbnails"] if "thumbnails" in file.files else None,
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if kept.thumbnails is not None and kept.thumbnails.shape != (len(kept.found), SIDE, SIDE, 3):
        return None
    if kept.landmarks.shape != (len(kept.found), NUM_LANDMARKS, 2) or not np.isfinite(kept.landmarks).all():
        return None
    return kept


def keep_detections(out: Path, detections: Detections, name: str = LANDMARKS_FILE) -> None:
    """Write what was found, for a run that goes on and for drivers."""
    with written_beside(out / name) as partial, partial.open("wb") as file:
        np.savez(
            file,
            landmarks=detections.landmarks.astype(np.float32),
            found=detections.found,
            most_faces=np.array(detections.most_faces),
            **({} if detections.thumbnails is None else {"thumbnails": detections.thumbnails}),
        )
