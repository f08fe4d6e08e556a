"""MediaPipe's face landmarks and selfie segmentation, frame by frame.

The models lie in MediaPipe's wheel (Apache 2.0): nothing is downloaded, and no image leaves the machine. 478 landmarks with
attention; the last ten are the irises. They are predicted in a crop that follows the face from frame to frame.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.tracking.mediapipe_install import MEDIAPIPE_INSTALL

NUM_LANDMARKS = 478
FIRST_IRIS = 468
"""Five landmarks of the right iris, then five of the left."""
OUTER_EYE_CORNERS = (33, 263)
"""Right and left: their distance is the unit in which landmark errors are given."""
MOST_FACES = 3
NOTES_TAKE = 0.3
"""Seconds in which MediaPipe's own threads write their notes."""

Landmarks = Float[np.ndarray, "478 2"]


def require_mediapipe() -> None:
    """Check that MediaPipe can be imported, without starting it.

    Raises:
        UserError: it cannot; says how to install it.
    """
    try:
        with quiet():
            import mediapipe.python.solutions.face_mesh  # noqa: F401
    except ImportError as error:
        raise UserError(f"Tracking needs MediaPipe ({error}). Install it: {MEDIAPIPE_INSTALL}") from error


class FaceDetector:
    """Landmarks of the face in consecutive frames of a video; use as a context manager.

    Of several faces the largest is taken first, and then the one that is nearest to it in each frame.
    """

    def __init__(self) -> None:
        require_mediapipe()
        import mediapipe as mp

        with quiet():
            self._mesh = mp.solutions.face_mesh.FaceMesh(
                static_image_mode=False, refine_landmarks=True, max_num_faces=MOST_FACES
            )
            # Its graph starts, with notes of C++ on the terminal, when it is given an image.
            self._mesh.process(np.zeros((64, 64, 3), np.uint8))
            time.sleep(NOTES_TAKE)
        self._last: Landmarks | None = None
        self.faces = 0
        """Faces in the last frame."""

    def __enter__(self) -> FaceDetector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._mesh.close()

    def detect(self, frame: UInt8[np.ndarray, "height width 3"]) -> Landmarks | None:
        """Pixels of the landmarks (x to the right, y down, pixel centres at half numbers), or None without a face."""
        height, width = frame.shape[:2]
        # The first face makes the graph write another note.
        with quiet() if self._last is None else contextlib.nullcontext():
            found = self._mesh.process(frame).multi_face_landmarks or ()
        self.faces = len(found)
        if not found:
            return None
        faces = [np.array([(p.x * width, p.y * height) for p in face.landmark]) for face in found]
        if self._last is None:
            chosen = max(faces, key=_size)
        else:
            middle = self._last.mean(0)
            chosen = min(faces, key=lambda face: float(np.linalg.norm(face.mean(0) - middle)))
        self._last = chosen
        return chosen


class PersonSegmenter:
    """Share of each pixel that shows the person, by MediaPipe's selfie segmentation; use as a context manager."""

    def __init__(self) -> None:
        require_mediapipe()
        import mediapipe as mp

        with quiet():
            self._segmentation = mp.solutions.selfie_segmentation.SelfieSegmentation(model_selection=0)
            self._segmentation.process(np.zeros((64, 64, 3), np.uint8))
            time.sleep(NOTES_TAKE)

    def __enter__(self) -> PersonSegmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._segmentation.close()

    def segment(self, frame: UInt8[np.ndarray, "height width 3"]) -> Float[np.ndarray, "height width"]:
        """Soft mask in [0, 1], float32."""
        mask = self._segmentation.process(frame).segmentation_mask
        return np.clip(np.asarray(mask, np.float32), 0.0, 1.0)


def _size(face: Landmarks) -> float:
    return float(np.prod(face.max(0) - face.min(0)))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep MediaPipe's C++ notes about delegates off the terminal: they are written to the file descriptor itself."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as sink:
            os.dup2(sink.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
