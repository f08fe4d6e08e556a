"""The head at rest, prepared for painting: materials, labels, landmarks, and the outlines drawn on it.

Canonical position = the place on the template that a surface point belongs to, whatever the identity,
expression or pose. Everything painted is a function of it, so it sticks to the surface and lands on the
right surface point of every identity.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.synthetic.noise import fbm, smoothstep

SKIN, EYE, TEETH, MOUTH, CLOTH, HAIR, BEARD, KNIT, FRAME, LENS = range(10)
MATERIALS = 10

LABELS: dict[str, int] = {
    "background": 0,
    "skin": 1,
    "hair": 2,
    "brows": 3,
    "eyelids": 4,
    "eyes": 5,
    "iris": 6,
    "nose": 7,
    "lips": 8,
    "teeth": 9,
    "mouth": 10,
    "tongue": 11,
    "ears": 12,
    "neck": 13,
    "clothes": 14,
    "beard": 15,
    "hat": 16,
    "glasses": 17,
}
"""Numbers in the label images. "eyes" is the white of the eye, "mouth" its inside without teeth and
tongue.
"""

_NEEDED = ("eye_left", "eye_right", "eyes", "iris", "lips", "mouth", "teeth", "tongue", "nose", "skin")


@dataclass(frozen=True)
class Landmarks:
    """Places on the template, metres; paired features are given for the subject's left side (x > 0)."""

    eye: Float[np.ndarray, " 3"]
    eye_radius: float
    iris_radius: float
    nose_tip: Float[np.ndarray, " 3"]
    nose_wing: Float[np.ndarray, " 3"]
    mouth: Float[np.ndarray, " 3"]
    """The middle of the line where the lips meet."""
    mouth_half_width: float
    skull: Float[np.ndarray, " 3"]
    """A point on the axis that the hairline is described around."""


@dataclass(frozen=True)
class CanonicalHead:
    """The template with what painting and hair need."""

    assets: FlameAssets
    model: FlameModel
    faces: Int[np.ndarray, "f 3"]
    face_material: Int[np.ndarray, " f"]
    face_label: Int[np.ndarray, " f"]
    neighbours: csr_matrix
    """Row-normalised vertex adjacency."""
    skull_vertices: Int[np.ndarray, " n"]
    """Vertices that move with the skull alone: their rigid motion carries the hair."""
    landmarks: Landmarks


@lru_cache(maxsize=2)
def canonical_head(flame_model_path: Path | None = None) -> CanonicalHead:
    """Prepare the open head (or another head that names the same regions); cached.

    Raises:
        ValueError: the head lacks the named regions that the painting needs.
    """
    # Not FLAME_MODEL_PATH: FLAME has none of the regions that are painted here.
    assets = load_assets(flame_model_path or OPEN_HEAD_PATH)
    missing = sorted(set(_NEEDED) - set(assets.vertex_regions))
    if missing:
        raise UserError(
            f"{assets.source}: the capture paints named regions, and this head has no {', '.join(missing)}. "
            "Leave the option out to use the embedded open head."
        )
    rest = assets.v_template.astype(np.float64)
    landmarks = _landmarks(assets, rest)
    faces = np.asarray(assets.faces, np.int64)
    material, label = _face_classes(assets, landmarks)
    skin = np.zeros(len(rest), bool)
    skin[assets.vertex_regions["skin"]] = True
    return CanonicalHead(
        assets=assets,
        model=FlameModel.from_assets(assets),
        faces=faces,
        face_material=material,
        face_label=label,
        neighbours=_adjacency(faces, len(rest)),
        skull_vertices=np.flatnonzero(skin & (hairline(rest, landmarks) > 0.01) & (rest[:, 1] > 0.04)),
        landmarks=landmarks,
    )


def _face_classes(assets: FlameAssets, landmarks: Landmarks) -> tuple[np.ndarray, np.ndarray]:
    """Material and label of every face; later entries win where regions overlap."""
    count = len(assets.faces)
    material, label = np.full(count, SKIN), np.full(count, LABELS["skin"])
    order = (
        ("neck", SKIN, "neck"),
        ("face", SKIN, "skin"),
        ("nose", SKIN, "nose"),
        ("eyelids", SKIN, "eyelids"),
        ("mouth", MOUTH, "mouth"),
        ("gums", MOUTH, "mouth"),
        ("tongue", MOUTH, "tongue"),
        ("teeth", TEETH, "teeth"),
        ("eyes", EYE, "eyes"),
        ("bust_cap", CLOTH, "clothes"),
    )
    for region, kind, name in order:
        if region in assets.face_regions:
            material[assets.face_regions[region]] = kind
            label[assets.face_regions[region]] = LABELS[name]
    centres = assets.v_template[assets.faces].mean(axis=1)
    skin = material == SKIN
    label[skin & (ear_weight(centres) > 0.5)] = LABELS["ears"]
    return material, label


def _landmarks(assets: FlameAssets, rest: np.ndarray) -> Landmarks:
    eye_points = rest[assets.vertex_regions["eye_left"]]
    eye = (eye_points.min(0) + eye_points.max(0)) / 2
    iris = rest[np.intersect1d(assets.vertex_regions["iris"], assets.vertex_regions["eye_left"])]
    nose = rest[assets.vertex_regions["nose"]]
    tip = nose[nose[:, 2].argmax()] * [0, 1, 1]
    wings = nose[(np.abs(nose[:, 1] - tip[1] + 0.005) < 0.006) & (nose[:, 2] > tip[2] - 0.024)]
    # The lips meet the inside of the mouth along the line where they touch.
    faces = np.asarray(assets.faces)
    seam = np.intersect1d(faces[assets.face_regions["lips"]], faces[assets.face_regions["mouth"]])
    meeting = rest[seam]
    return Landmarks(
        eye=eye,
        eye_radius=float(np.linalg.norm(eye_points - eye, axis=1).mean()),
        iris_radius=float(np.ptp(iris[:, 0]) / 2),
        nose_tip=tip,
        nose_wing=wings[wings[:, 0].argmax()],
        mouth=np.array([0.0, meeting[:, 1].mean(), meeting[:, 2].max()]),
        mouth_half_width=float(np.ptp(meeting[:, 0]) / 2 + 0.0015),
        skull=np.array([0.0, 0.0, eye[2] - 0.066]),
    )


def _adjacency(faces: np.ndarray, count: int) -> csr_matrix:
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0)
    rows, columns = np.concatenate([edges[:, 0], edges[:, 1]]), np.concatenate([edges[:, 1], edges[:, 0]])
    matrix = csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    degree = np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)
    return csr_matrix(matrix.multiply(1.0 / degree[:, None]))


# --- outlines: all in metres on the template, eyes at height `landmarks.eye[1]` -----------------------------

_HAIRLINE_AZIMUTH = np.radians([0, 20, 38, 50, 58, 66, 72, 80, 86, 92, 108, 116, 130, 150, 180])
# Heights above the eyes: forehead, temple, sideburn, above the ear, behind it, nape.
_HAIRLINE_HEIGHT = np.array(
    [
        0.066,
        0.067,
        0.063,
        0.053,
        0.036,
        0.012,
        -0.018,
        -0.022,
        -0.004,
        0.013,
        0.011,
        -0.020,
        -0.056,
        -0.071,
        -0.076,
    ]
)
_RECESSION = np.array([16, 19, 26, 30, 26, 14, 3, 0, 0, 0, 0, 0, 0, 0, 0]) * 1e-3
"""How far the hairline has gone up by eighty years, metres, by azimuth."""


def hairline(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> Float[np.ndarray, " n"]:
    """About the signed distance to the hairline in metres, positive where hair grows."""
    azimuth = np.arctan2(np.abs(points[:, 0]), points[:, 2] - landmarks.skull[2])
    height = np.interp(azimuth, _HAIRLINE_AZIMUTH, _HAIRLINE_HEIGHT) + landmarks.eye[1]
    return 0.75 * (points[:, 1] - height) - 0.03 * ear_weight(points)


def receded(points: Float[np.ndarray, "n 3"], landmarks: Landmarks, age: float) -> Float[np.ndarray, " n"]:
    """As `hairline`, of an older person: it has gone back over the temples, and less over the middle of the forehead.

    Args:
        age: 0 the own hairline, 1 that of about eighty years.
    """
    azimuth = np.arctan2(np.abs(points[:, 0]), points[:, 2] - landmarks.skull[2])
    back = np.interp(azimuth, _HAIRLINE_AZIMUTH, _RECESSION)
    return hairline(points, landmarks) - 0.75 * age * back


def hair_coverage(
    points: Float[np.ndarray, "n 3"], landmarks: Landmarks, age: float = 0.0
) -> Float[np.ndarray, " n"]:
    """How much of the skin the hair's roots cover: an irregular hairline some millimetres wide."""
    jitter = fbm(points, 140.0, 2, seed=11)
    return smoothstep(-0.001, 0.010 + 0.012 * age, receded(points, landmarks, age) + 0.004 * jitter)


def ear_weight(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """1 on the ears, 0 elsewhere: an ellipsoid around each."""
    d = (
        (np.abs(points[:, 0]) - 0.081) / 0.0125,
        (points[:, 1] - 0.014) / 0.037,
        (points[:, 2] + 0.045) / 0.026,
    )
    return smoothstep(1.15, 0.9, np.sqrt(d[0] ** 2 + d[1] ** 2 + d[2] ** 2))


def lip_distance(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> Float[np.ndarray, " n"]:
    """Distance inside the red of the lips, metres, negative outside; upper lip with Cupid's bow, fuller
    lower lip.
    """
    x = np.abs(points[:, 0])
    y = points[:, 1] - landmarks.mouth[1]
    arch = np.clip(1.0 - (x / landmarks.mouth_half_width) ** 2, 0.0, None)
    upper = 0.0118 * arch**0.85 - 0.0016 * np.exp(-((x / 0.0035) ** 2)) - y
    lower = y + 0.0128 * arch**0.7
    inside = np.minimum(np.minimum(upper, lower), (landmarks.mouth_half_width - x) * 1.5)
    return np.where(points[:, 2] > landmarks.mouth[2] - 0.03, inside, -1.0)


def brow_position(points: Float[np.ndarray, "n 3"], landmarks: Landmarks) -> tuple[np.ndarray, np.ndarray]:
    """Along the brow (0 inner end, 1 outer end) and across it (-1 to 1 inside)."""
    x = np.abs(points[:, 0])
    inner, outer = landmarks.eye[0] - 0.018, landmarks.eye[0] + 0.0245
    along = (x - inner) / (outer - inner)
    centre = (
        landmarks.eye[1]
        + 0.0185
        + 0.0085 * np.sin(np.clip(along, 0, 1) * np.pi * 0.80 + 0.05)
        - 0.003 * along
    )
    half = (
        0.0050 * np.clip(1.08 - 0.75 * np.clip(along, 0, 1) ** 1.6, 0.1, 1) * smoothstep(-0.12, 0.15, along)
    )
    across = (points[:, 1] - centre) / np.maximum(half, 1e-4)
    front = points[:, 2] > landmarks.eye[2] - 0.012
    return along, np.where(front, across, 9.0)


def collar_distance(points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Signed distance below the collar of a crew neck, metres: lower at the throat than at the nape."""
    height = -0.106 - 0.36 * (points[:, 2] + 0.06)
    return height - points[:, 1]
