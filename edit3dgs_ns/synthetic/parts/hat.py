"""A knitted hat: a shell around the scalp with a turned-up cuff, and the hair pressed below it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.ndimage import gaussian_filter, map_coordinates

from edit3dgs_ns.capture.rays import build_intersector
from edit3dgs_ns.synthetic.baking import BakedIdentity, vertex_normals
from edit3dgs_ns.synthetic.canonical import KNIT, LABELS, SKIN
from edit3dgs_ns.synthetic.hair import HairMesh
from edit3dgs_ns.synthetic.lighting import normalize
from edit3dgs_ns.synthetic.noise import fbm
from edit3dgs_ns.synthetic.part import Part

RIBS = 44
"""Knitted ribs around the head."""
_COLUMNS, _BODY_ROWS = 132, 26
_AZIMUTHS, _POLARS = 96, 72
_LARGEST = np.radians(140.0)
# The profile of the cuff: height above the brim along the head, and distance from the scalp's shell; millimetres.
_CUFF = 1e-3 * np.array(
    [
        (7.0, -1.5), (1.5, 0.5), (-0.8, 3.0), (-0.2, 6.5), (2.5, 8.6), (8.0, 9.6), (16.0, 10.0), (24.0, 10.0),
        (32.0, 9.6), (37.5, 8.8), (40.0, 7.0), (40.8, 4.6),
    ]
)  # fmt: skip
_BODY = 0.0045
_DOME = 0.013
"""How much higher than the scalp the crown stands, metres."""


@dataclass(frozen=True)
class _Shell:
    """The scalp without ears as distances from a centre, over azimuth (0 is the front) and the angle from the crown."""

    centre: Float[np.ndarray, " 3"]
    axes: Float[np.ndarray, "3 3"]
    """Rows: to the subject's left, to the crown, to the front."""
    radii: Float[np.ndarray, "p a"]

    def directions(self, polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        local = np.stack(
            [np.sin(polar) * np.sin(azimuth), np.cos(polar), np.sin(polar) * np.cos(azimuth)], axis=-1
        )
        return local @ self.axes

    def radius(self, polar: np.ndarray, azimuth: np.ndarray) -> np.ndarray:
        rows = np.clip(polar / _LARGEST, 0.0, 1.0) * (_POLARS - 1)
        columns = (azimuth / (2 * np.pi)) % 1.0 * _AZIMUTHS
        return map_coordinates(self.radii, [rows, columns], order=1, mode="grid-wrap")

    def place(self, polar: np.ndarray, azimuth: np.ndarray, above: np.ndarray | float) -> np.ndarray:
        radius = self.radius(polar, azimuth) + above
        return self.centre + radius[..., None] * self.directions(polar, azimuth)

    def polar_coordinates(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        local = (points - self.centre) @ self.axes.T
        radius = np.linalg.norm(local, axis=1)
        polar = np.arccos(np.clip(local[:, 1] / np.maximum(radius, 1e-9), -1.0, 1.0))
        return radius, polar, np.arctan2(local[:, 0], local[:, 2])


def wear_hat(base: BakedIdentity, depth: float) -> tuple[Part, HairMesh]:
    """A hat on a person's head at rest, and the locks pressed below it.

    Args:
        depth: thickness of the person's hair, metres.
    """
    shell = _shell(base, 0.0015 + min(0.35 * depth, 0.006))
    brim = _brim(base, shell)
    return _knit(shell, brim), _pressed(base.hair, shell, brim)


def _shell(base: BakedIdentity, clearance: float) -> _Shell:
    head, rest = base.head, base.rest
    up = normalize(np.array([0.0, 1.0, -0.22]))
    front = normalize(np.array([0.0, 0.22, 1.0]))
    centre = rest[head.skull_vertices].mean(axis=0) - [0.0, 0.05, 0.0]
    shell = _Shell(centre, np.stack([np.cross(up, front), up, front]), np.zeros((_POLARS, _AZIMUTHS)))
    polar = np.linspace(0.0, _LARGEST, _POLARS)[:, None] + np.zeros((1, _AZIMUTHS))
    azimuth = np.zeros((_POLARS, 1)) + np.arange(_AZIMUTHS)[None] / _AZIMUTHS * 2 * np.pi
    faces = head.faces[(head.face_material == SKIN) & (head.face_label != LABELS["ears"])]
    direction = shell.directions(polar, azimuth).reshape(-1, 3).astype(np.float32)
    origin = np.broadcast_to(centre.astype(np.float32), direction.shape)
    hit = build_intersector(rest, faces).run(np.ascontiguousarray(origin), direction, output=1)
    radii = np.where(hit["primID"] >= 0, hit["tfar"], np.nan).reshape(_POLARS, _AZIMUTHS)
    for row in range(1, _POLARS):  # where an ear was cut out or the ray left through the neck
        radii[row] = np.where(np.isnan(radii[row]), radii[row - 1], radii[row])
    smooth = gaussian_filter(radii, 2.0, mode=("nearest", "wrap"))
    radii = gaussian_filter(np.maximum(radii, smooth), 1.5, mode=("nearest", "wrap")) + clearance
    return replace(shell, radii=radii)


def _brim(base: BakedIdentity, shell: _Shell) -> Float[np.ndarray, " a"]:
    """Angle from the crown at which the hat ends, for each azimuth: above the brows, on the ears' tops, at the nape."""
    regions = base.head.assets.vertex_regions
    eye = base.rest[regions["eyes"], 1].mean()
    ear = base.rest[regions["ears"], 1].max()
    azimuth = np.arange(_AZIMUTHS) / _AZIMUTHS * 2 * np.pi
    folded = np.degrees(np.minimum(azimuth, 2 * np.pi - azimuth))
    height = np.interp(
        folded, [0, 35, 78, 112, 150, 180], [eye + 0.047, eye + 0.044, ear + 0.004, ear + 0.001, eye - 0.014, eye - 0.020]
    )  # fmt: skip
    height = gaussian_filter(height, 3.0, mode="wrap")
    polar = np.linspace(0.0, _LARGEST, 400)
    ends = np.empty(_AZIMUTHS)
    for k in range(_AZIMUTHS):
        y = shell.place(polar, np.full(400, azimuth[k]), 0.0)[:, 1]
        ends[k] = polar[np.argmax(y < height[k])]
    return gaussian_filter(ends, 2.0, mode="wrap")


def _knit(shell: _Shell, brim: Float[np.ndarray, " a"]) -> Part:
    azimuth = np.linspace(0.0, 2 * np.pi, _COLUMNS + 1)
    end = _at(brim, azimuth)
    rim = shell.radius(end, azimuth)
    rows = [(end - height / rim, np.full_like(end, above)) for height, above in _CUFF]
    start = rows[-1][0]
    for k in range(1, _BODY_ROWS + 1):
        share = k / _BODY_ROWS
        rows.append((start * (1.0 - share), np.full_like(end, _BODY + _DOME * share**1.3)))
    polar, above = (np.stack(values) for values in zip(*rows, strict=True))
    grid_azimuth = np.broadcast_to(azimuth, polar.shape)
    points = shell.place(polar, grid_azimuth, above)
    slack = fbm(points.reshape(-1, 3), 30.0, 2, seed=95).reshape(polar.shape)
    worn = np.arange(len(rows))[:, None] >= len(_CUFF)
    points += (0.0014 * slack * worn * np.sin(polar))[..., None] * shell.directions(polar, grid_azimuth)
    points[:, -1], points[-1] = points[:, 0], points[-1].mean(axis=0)
    index = np.arange(points[..., 0].size).reshape(polar.shape)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, :-1], index[1:, 1:]
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    normal = vertex_normals(points.reshape(-1, 3), faces).reshape(points.shape)
    normal[:, 0] = normal[:, -1] = normalize(normal[:, 0] + normal[:, -1])
    normal[-1] = normalize(normal[-1].mean(axis=0))
    tangent = normalize(np.gradient(points, axis=1) + 1e-9)
    height = np.concatenate(
        [np.zeros((1, len(azimuth))), np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=2), axis=0)]
    )
    return Part(
        material=KNIT,
        label="hat",
        vertices=points.reshape(-1, 3),
        faces=faces,
        normals=normal.reshape(-1, 3),
        tangents=tangent.reshape(-1, 3),
        across=np.broadcast_to(azimuth / (2 * np.pi) * RIBS, polar.shape).ravel(),
        along=height.ravel(),
        lock=np.zeros(polar.size),
        layer=np.broadcast_to(~worn, polar.shape).astype(float).ravel(),
    )


def _pressed(hair: HairMesh, shell: _Shell, brim: Float[np.ndarray, " a"]) -> HairMesh:
    """The locks with their inside below the hat: what it covers is left out, what leaves it comes out under the brim."""
    radius, polar, azimuth = shell.polar_coordinates(hair.vertices)
    end = _at(brim, azimuth)
    inner = shell.radius(np.minimum(polar, end), azimuth) - 0.0005
    beyond = np.maximum(polar - end, 0.0) * inner
    limit = inner + 0.9 * beyond
    vertices = (
        shell.centre
        + (hair.vertices - shell.centre) * np.minimum(1.0, limit / np.maximum(radius, 1e-9))[:, None]
    )
    hidden = (polar < end - 0.012 / inner)[hair.faces].all(axis=1)
    return replace(hair, vertices=vertices, faces=hair.faces[~hidden])


def _at(brim: Float[np.ndarray, " a"], azimuth: np.ndarray) -> np.ndarray:
    columns = (azimuth / (2 * np.pi)) % 1.0 * _AZIMUTHS
    return map_coordinates(brim, [columns], order=1, mode="grid-wrap")
