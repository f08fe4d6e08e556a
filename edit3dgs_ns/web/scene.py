"""The scene of a web page: triangle-local Gaussians, a motion and a camera, and the steps to which they are quantised."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.web.packing import Quantised, indices, pack, quantise, unpack

STEPS = {
    "vertices": 8e-6,  # metres: a fiftieth of a pixel of a image 800 pixels high
    "normals": 1 / 32767,
    "means": 1e-3,  # sizes of a triangle, which are a few millimetres
    "quats": 1 / 32767,
    "scales": 2e-3,  # of the logarithm: 0.2 %
    "opacities": 1 / 4096,
    "colors": 1 / 512,  # a grey level of 256 is 1/72
    "offsets": 1 / 1024,
    "codes": 1 / 4096,
}
"""Quantisation steps (`packing.quantise`)."""


@dataclass(frozen=True)
class WebGaussians:
    """Gaussians as the page draws them, in the frames of their triangles (`splats.binding`)."""

    binding: Int[np.ndarray, " gaussians"]
    """The face of each Gaussian."""
    means: Float[np.ndarray, "gaussians 3"]
    """In units of the triangle's size."""
    quats: Float[np.ndarray, "gaussians 4"]
    """wxyz, of any length but 0."""
    scales: Float[np.ndarray, "gaussians 3"]
    """Logarithms of standard deviations in units of the triangle's size."""
    opacities: Float[np.ndarray, " gaussians"]
    """In [0, 1]."""
    colors: Float[np.ndarray, "gaussians bases 3"]
    """Coefficients of spherical harmonics, 1, 4, 9 or 16 of them."""
    mean_offsets: Float[np.ndarray, "gaussians rank 3"]
    """Change of the means for each unit of the code (see `splats.appearance`); a rank of 0 for none."""
    color_offsets: Float[np.ndarray, "gaussians rank 3"]
    """The same of the colours of degree 0."""


@dataclass(frozen=True)
class WebCamera:
    """The initial camera."""

    position: Float[np.ndarray, " 3"]
    """Metres."""
    target: Float[np.ndarray, " 3"]
    """The point that it looks at and orbits."""
    up: Float[np.ndarray, " 3"]
    """Upwards in the image."""
    tangents: tuple[float, float]
    """Of half the angles of view, across and upwards."""
    reach: tuple[float, float]
    """Largest orbit angles to either side, and up and down, radians; pi: all around."""


@dataclass(frozen=True)
class WebScene:
    """The avatar, its motion, light and camera."""

    gaussians: WebGaussians
    faces: Int[np.ndarray, "faces 3"]
    vertices: Float[np.ndarray, "frames vertices 3"]
    """At every frame of the motion, metres."""
    rest_normals: Float[np.ndarray, "faces 3"]
    """Of the head at rest."""
    codes: Float[np.ndarray, "frames rank"]
    """The expression's code at every frame, for the offsets."""
    light: Float[np.ndarray, "8 3"]
    """Of `splats.relighting`."""
    camera: WebCamera
    fps: float
    """Frames per second of the motion."""
    antialiased: bool = False
    """Whether opacities are compensated for the rasterizer's blur (Mip-Splatting)."""

    def centred(self) -> WebScene:
        """The scene with the camera's target at the origin: small numbers are quantised more finely."""
        origin = self.camera.target
        camera = replace(self.camera, position=self.camera.position - origin, target=np.zeros(3))
        return replace(self, vertices=self.vertices - origin, camera=camera)

    def packed(self) -> bytes:
        """The scene as bytes for the page's reader.

        Raises:
            ValueError: it holds numbers that are not finite.
        """
        g, camera = self.gaussians, self.camera
        quats = g.quats / np.linalg.norm(g.quats, axis=1, keepdims=True)
        arrays = {
            "faces": indices(self.faces),
            "binding": indices(g.binding),
            "vertices": quantise(self.vertices, STEPS["vertices"], differences=True),
            "normals": quantise(self.rest_normals, STEPS["normals"]),
            "means": quantise(g.means, STEPS["means"]),
            "quats": quantise(quats, STEPS["quats"]),
            "scales": quantise(g.scales, STEPS["scales"]),
            "opacities": quantise(g.opacities, STEPS["opacities"]),
            "colors": quantise(g.colors, STEPS["colors"]),
            "offsets": _offsets(g),
            "codes": quantise(self.codes, STEPS["codes"]),
        }
        facts = {
            "fps": self.fps,
            "antialiased": self.antialiased,
            "light": np.asarray(self.light, np.float64).tolist(),
            "camera": {
                "position": camera.position.tolist(),
                "target": camera.target.tolist(),
                "up": camera.up.tolist(),
                "tangents": list(camera.tangents),
                "reach": list(camera.reach),
            },
        }
        return pack(arrays, facts)


def unpacked(data: bytes) -> WebScene:
    """The quantised scene that the page renders, from `WebScene.packed`."""
    arrays, facts = unpack(data)
    numbers = {name: array.restored() for name, array in arrays.items()}
    rank = numbers["codes"].shape[1]
    camera = facts["camera"]
    return WebScene(
        gaussians=WebGaussians(
            binding=arrays["binding"].values.astype(np.int64),
            means=numbers["means"],
            quats=numbers["quats"],
            scales=numbers["scales"],
            opacities=numbers["opacities"],
            colors=numbers["colors"],
            mean_offsets=numbers["offsets"][:, :rank],
            color_offsets=numbers["offsets"][:, rank:],
        ),
        faces=arrays["faces"].values.astype(np.int64),
        vertices=numbers["vertices"],
        rest_normals=numbers["normals"],
        codes=numbers["codes"],
        light=np.array(facts["light"]),
        camera=WebCamera(
            position=np.array(camera["position"]),
            target=np.array(camera["target"]),
            up=np.array(camera["up"]),
            tangents=tuple(camera["tangents"]),
            reach=tuple(camera["reach"]),
        ),
        fps=facts["fps"],
        antialiased=facts["antialiased"],
    )


def _offsets(g: WebGaussians) -> Quantised:
    """Of each Gaussian first those of its mean, then those of its colour."""
    return quantise(np.concatenate([g.mean_offsets, g.color_offsets], axis=1), STEPS["offsets"])
