"""How far mouth and lids are open over time, as a landmark detector sees it in any images of a face."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from edit3dgs_ns.tracking.detector import OUTER_EYE_CORNERS, FaceDetector

_MOUTH = (13, 14)
"""Middles of the inner lips."""
_LIDS = ((159, 145), (386, 374))
"""Middles of the upper and lower lid, right and left."""
LEAST_FRAMES = 5


@dataclass(frozen=True)
class FaceSeries:
    """Openings in units of the distance between the outer corners of the eyes; NaN where no face is found."""

    mouth: Float[np.ndarray, " frames"]
    lids: Float[np.ndarray, " frames"]

    @classmethod
    def of(cls, images: Iterable[UInt8[np.ndarray, "height width 3"]]) -> FaceSeries:
        """Of consecutive images."""
        rows = []
        with FaceDetector() as detector:
            for image in images:
                points = detector.detect(image)
                rows.append((np.nan, np.nan) if points is None else _openings(points))
        mouth, lids = np.array(rows).reshape(-1, 2).T
        return cls(mouth, lids)

    def __getitem__(self, frames: slice | np.ndarray) -> FaceSeries:
        """Some of the frames."""
        return FaceSeries(self.mouth[frames], self.lids[frames])

    def correlations(self, other: FaceSeries) -> tuple[float, float]:
        """Pearson's correlation of mouth and lids with those of other images, over the frames in which both show a face."""
        return correlation(self.mouth, other.mouth), correlation(self.lids, other.lids)


def correlation(a: Float[np.ndarray, " frames"], b: Float[np.ndarray, " frames"]) -> float:
    """Pearson's, over the frames in which both are known; NaN for too few."""
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < LEAST_FRAMES:
        return float("nan")
    return float(np.corrcoef(a[known], b[known])[0, 1])


def _openings(points: Float[np.ndarray, "478 2"]) -> tuple[float, float]:
    def apart(pair: tuple[int, int]) -> float:
        return float(np.linalg.norm(points[pair[0]] - points[pair[1]]))

    unit = apart(OUTER_EYE_CORNERS)
    return apart(_MOUTH) / unit, sum(apart(pair) for pair in _LIDS) / 2 / unit
