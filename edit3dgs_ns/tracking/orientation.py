"""Whether the faces of a video are upright: the landmark model draws an upright face on one that is upside down, too.

MediaPipe's short-range face detector is surer of an upright face than of any other, and its key points turn with a face that lies
on its side: on real clips its score is 0.90 to 0.95 for upright ones and 0.53 to 0.76 for the same upside down. A few frames are
looked at in all four orientations.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.tracking.detector import NOTES_TAKE, quiet

LOOKED_AT = 7
"""Frames, spread over the video."""
SURER = 0.08
"""How much higher the score of the face in another orientation must be than that in the frame as it is."""
UPRIGHT = 45.0
"""Degrees from the vertical, at most, of the line from the eyes to the mouth."""
LEAST_TURNED = 3
"""Frames that show it, at least: the back of a head is a face now and then."""
_LEAST_SCORE = 0.3
_MOUTH = 3
"""Of the detector's key points; the first two are the eyes."""
_FILTERS = {1: "transpose=2", 2: "hflip,vflip", 3: "transpose=1"}
"""FFmpeg's, by quarter turns counter-clockwise."""


def check_upright(
    path: Path, frames: list[UInt8[np.ndarray, "height width 3"]], camera: int | None = None
) -> None:
    """Refuse a video whose faces lie on their side or are upside down in most of the frames that show one.

    Args:
        path: the video, the folder of its frames, or a capture.
        frames: a few of it.
        camera: of a capture, whose frames they are.

    Raises:
        UserError: says how they lie, and how to turn the video.
    """
    scores = _scores(frames)
    scores = scores[scores.max(axis=1) > 0]
    best = scores.argmax(axis=1)
    turned = best[scores.max(axis=1) > scores[:, 0] + SURER]
    for turns, video_filter in _FILTERS.items():
        count = int((turned == turns).sum())
        if count > len(scores) / 2 and count >= LEAST_TURNED:
            how = "is upside down" if turns == 2 else "lies on its side"
            where = f"{path}" if camera is None else f"{path}: camera {camera}"
            raise UserError(
                f"{where}: the face {how} ({count} of {len(scores)} frames that were looked at). "
                f"{_what_turns(path, video_filter, camera)}."
            )


def _what_turns(path: Path, video_filter: str, camera: int | None) -> str:
    if not path.is_dir():
        return f"Turn the video upright: ffmpeg -i {path.name} -vf {video_filter} upright.mp4"
    images = f"Turn its images upright (each: ffmpeg -i IMAGE -vf {video_filter} UPRIGHT)"
    if camera is None:
        return images
    return f"{images}, and with them its transform_matrix, size, focal lengths and principal point"


def _scores(frames: list[UInt8[np.ndarray, "height width 3"]]) -> Float[np.ndarray, "T 4"]:
    """The detector's score of an upright face in each frame, turned counter-clockwise by 0 to 3 quarters; 0 without one."""
    import mediapipe as mp

    with quiet():
        detection = mp.solutions.face_detection.FaceDetection(min_detection_confidence=_LEAST_SCORE)
        detection.process(np.zeros((64, 64, 3), np.uint8))
        time.sleep(NOTES_TAKE)
    with detection:
        return np.array(
            [[_upright_score(detection, np.rot90(frame, turns)) for turns in range(4)] for frame in frames]
        )


def _upright_score(detection: Any, frame: UInt8[np.ndarray, "height width 3"]) -> float:
    height, width = frame.shape[:2]
    best = 0.0
    for face in detection.process(np.ascontiguousarray(frame)).detections or ():
        points = np.array([(p.x * width, p.y * height) for p in face.location_data.relative_keypoints])
        right, down = points[_MOUTH] - points[:2].mean(axis=0)
        if abs(math.degrees(math.atan2(right, down))) < UPRIGHT:
            best = max(best, float(face.score[0]))
    return best
