"""The scene of a web page: triangle-local Gaussians, the rig and motion that pose them, and a camera."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.web.packing import Quantised, exact, indices, pack, quantise, unpack
from edit3dgs_ns.web.rig import WebMotion, WebRig

STEPS = {
    "means": 1e-3,  # sizes of a triangle, which are a few millimetres
    "quats": 1 / 32767,
    "scales": 2e-3,  # of the logarithm: 0.2 %
    "opacities": 1 / 4096,
    "colors": 1 / 512,  # a grey level of 256 is 1/72
    "offsets": 1 / 1024,
}
"""Quantisation steps (`packing.quantise`)."""
_BEFORE = "before_"


@dataclass(frozen=True)
class WebGaussians:
    """Gaussians as the page draws them, in the frames of their triangles (`splats.binding`), and what their colours follow."""

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
    code_mean: Float[np.ndarray, " features"]
    """Of `splats.motion_code`."""
    code_basis: Float[np.ndarray, "features rank"]
    light: Float[np.ndarray, "8 3"]
    """Of `splats.relighting`."""

    def arrays(self) -> dict[str, Quantised]:
        """As they are stored."""
        offsets = np.concatenate([self.mean_offsets, self.color_offsets], axis=1)
        quats = self.quats / np.linalg.norm(self.quats, axis=1, keepdims=True)
        stored = {"means": self.means, "quats": quats, "scales": self.scales, "opacities": self.opacities}
        stored |= {"colors": self.colors, "offsets": offsets}
        return {
            "binding": indices(self.binding),
            **{name: quantise(values, STEPS[name]) for name, values in stored.items()},
            "code_mean": exact(self.code_mean),
            "code_basis": exact(self.code_basis),
            "light": exact(self.light),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Quantised]) -> WebGaussians:
        """What `arrays` has stored."""
        stored = {name: array.restored() for name, array in arrays.items()}
        rank = stored["code_basis"].shape[1]
        names = ("means", "quats", "scales", "opacities", "colors", "code_mean", "code_basis", "light")
        return cls(
            binding=arrays["binding"].values.astype(np.int64),
            mean_offsets=stored["offsets"][:, :rank],
            color_offsets=stored["offsets"][:, rank:],
            **{name: stored[name] for name in names},
        )


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
    """The avatar, its rig, motion and camera."""

    gaussians: WebGaussians
    rig: WebRig
    motion: WebMotion
    camera: WebCamera
    fps: float
    """Frames per second of the motion."""
    before: WebGaussians | None = None
    """The avatar before its edits."""
    antialiased: bool = False
    """Whether opacities are compensated for the rasterizer's blur (Mip-Splatting)."""

    def centred(self) -> WebScene:
        """The scene with the camera's target at the origin, where float32 is finest."""
        origin = self.camera.target
        camera = replace(self.camera, position=self.camera.position - origin, target=np.zeros(3))
        motion = replace(self.motion, translation=self.motion.translation - origin)
        return replace(self, motion=motion, camera=camera)

    def packed(self) -> bytes:
        """The scene as bytes for the page's reader.

        Raises:
            ValueError: it holds numbers that are not finite.
        """
        arrays = {**self.rig.arrays(), **self.motion.arrays(), **self.gaussians.arrays()}
        if self.before is not None:
            arrays |= {f"{_BEFORE}{name}": array for name, array in self.before.arrays().items()}
        camera = self.camera
        facts = {
            "fps": self.fps,
            "antialiased": self.antialiased,
            "parents": list(self.rig.parents),
            "names": None if self.rig.names is None else list(self.rig.names),
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
    camera, names = facts["camera"], facts["names"]
    before = {name.removeprefix(_BEFORE): array for name, array in arrays.items() if name.startswith(_BEFORE)}
    return WebScene(
        gaussians=WebGaussians.from_arrays(arrays),
        rig=WebRig.from_arrays(arrays, tuple(facts["parents"]), None if names is None else tuple(names)),
        motion=WebMotion.from_arrays(arrays),
        camera=WebCamera(
            position=np.array(camera["position"]),
            target=np.array(camera["target"]),
            up=np.array(camera["up"]),
            tangents=tuple(camera["tangents"]),
            reach=tuple(camera["reach"]),
        ),
        fps=facts["fps"],
        before=WebGaussians.from_arrays(before) if before else None,
        antialiased=facts["antialiased"],
    )
