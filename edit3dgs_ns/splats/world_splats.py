"""Gaussians in world coordinates with all that is drawn of them: joined with others, placed by a similarity transform.

A scene behind a head is drawn in one pass with it (`WorldSplats.joined`), so that each hides the other where it is nearer, through
hair and half-transparent edges too: two images composited by a mask could not do that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.rotations import multiplied
from edit3dgs_ns.splats.binding import WorldGaussians, rotmat_to_quat
from edit3dgs_ns.splats.similarity import Similarity
from edit3dgs_ns.splats.spherical_harmonics import MAX_DEGREE, bases_of, degree_of, sh_rotation

GAUSSIAN_PARAMETERS = ("means", "scales", "quats", "features_dc", "features_rest", "opacities")
"""Names of Splatfacto's trained parameters of a Gaussian."""


@dataclass(frozen=True)
class WorldSplats:
    """Input of `rasterize`."""

    gaussians: WorldGaussians
    opacities: Float[Tensor, " gaussians"]
    """In [0, 1]."""
    colors: Float[Tensor, "gaussians bases 3"]
    """SH coefficients; directions are those of the world."""

    def __len__(self) -> int:
        """Number of Gaussians."""
        return len(self.opacities)

    @property
    def sh_degree(self) -> int:
        """Degree of the spherical harmonics."""
        return degree_of(self.colors.shape[1])

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Means, quaternions, scales, opacities and colours: the first arguments of `rasterize`."""
        g = self.gaussians
        return g.means, g.quats, g.scales, self.opacities, self.colors

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Tensor], where: str) -> WorldSplats:
        """From trained parameters: log scales, logits of opacities, quaternions of any length.

        Args:
            parameters: see GAUSSIAN_PARAMETERS; features_dc (N, 3), features_rest (N, K, 3), opacities (N, 1).
            where: the file or option, for messages.

        Raises:
            ValueError: numbers that are not finite, a rotation without a direction, or another degree than 0 to 3.
        """
        for name in GAUSSIAN_PARAMETERS:
            _check_finite(where, name, parameters[name])
        bases = 1 + parameters["features_rest"].shape[1]
        if bases not in [bases_of(degree) for degree in range(MAX_DEGREE + 1)]:
            raise UserError(
                f"{where}: has {bases} spherical harmonics a Gaussian; expected 1, 4, 9 or 16 (degree 0 to {MAX_DEGREE})."
            )
        scales, lengths = parameters["scales"].exp(), parameters["quats"].norm(dim=-1, keepdim=True)
        _check_finite(where, "scales (as exponents)", scales)
        if not bool((lengths > 0).all()):
            row = int((lengths[:, 0] == 0).nonzero()[0])
            raise UserError(f"{where}: the rotation of Gaussian {row} is a quaternion of length 0.")
        return cls(
            WorldGaussians(parameters["means"], parameters["quats"] / lengths, scales),
            torch.sigmoid(parameters["opacities"][:, 0]),
            torch.cat([parameters["features_dc"][:, None], parameters["features_rest"]], dim=1),
        )

    def to(self, device: torch.device | str) -> WorldSplats:
        """The same on a device."""
        g = self.gaussians
        moved = WorldGaussians(g.means.to(device), g.quats.to(device), g.scales.to(device))
        return WorldSplats(moved, self.opacities.to(device), self.colors.to(device))

    def joined(self, other: WorldSplats | None) -> WorldSplats:
        """These Gaussians, then the others; the lower degree of spherical harmonics is filled up with zeros."""
        if other is None:
            return self
        bases = max(self.colors.shape[1], other.colors.shape[1])
        mine, theirs = self.gaussians, other.gaussians
        return WorldSplats(
            WorldGaussians(
                torch.cat([mine.means, theirs.means]),
                torch.cat([mine.quats, theirs.quats]),
                torch.cat([mine.scales, theirs.scales]),
            ),
            torch.cat([self.opacities, other.opacities]),
            torch.cat([_filled_up(self.colors, bases), _filled_up(other.colors, bases)]),
        )

    def selected(self, keep: Bool[Tensor, " gaussians"]) -> WorldSplats:
        """The Gaussians of a mask."""
        g = self.gaussians
        return WorldSplats(
            WorldGaussians(g.means[keep], g.quats[keep], g.scales[keep]),
            self.opacities[keep],
            self.colors[keep],
        )

    def moved(self, new_from_old: Similarity) -> WorldSplats:
        """The scene moved by a similarity transform; its view-dependent colours turn with it."""
        g, like = self.gaussians, self.gaussians.means
        rotation = torch.from_numpy(new_from_old.rotation).to(like.device)
        turn = rotmat_to_quat(rotation).to(like)
        translation = torch.from_numpy(new_from_old.translation).to(like.device)
        means = new_from_old.scale * g.means.double() @ rotation.T + translation
        colors = torch.einsum("jk,nkc->njc", sh_rotation(rotation, self.sh_degree).to(like), self.colors)
        placed = WorldGaussians(means.to(like), multiplied(turn, g.quats), new_from_old.scale * g.scales)
        return WorldSplats(placed, self.opacities, colors)


@dataclass(frozen=True)
class Backdrop:
    """A static scene around a head, and its placement."""

    scene: WorldSplats
    """In its own coordinates, as its file has it."""
    head_from_scene: Similarity
    """From there to the head's world: metres, y up, the face looks along +z."""
    source: str
    """The file that it comes from."""

    @cached_property
    def placed(self) -> WorldSplats:
        """In the head's world."""
        with torch.no_grad():
            return self.scene.moved(self.head_from_scene)

    def at(self, head_from_scene: Similarity) -> Backdrop:
        """The same scene at another placement."""
        return replace(self, head_from_scene=head_from_scene)

    def to(self, device: torch.device | str) -> Backdrop:
        """The same on a device."""
        return replace(self, scene=self.scene.to(device))

    def state(self) -> dict[str, Any]:
        """Tensors and plain values, for a checkpoint."""
        g = self.scene.gaussians
        tensors = {
            "means": g.means,
            "quats": g.quats,
            "scales": g.scales,
            "opacities": self.scene.opacities,
            "colors": self.scene.colors,
            "head_from_scene": torch.from_numpy(self.head_from_scene.matrix),
        }
        return {name: value.detach().cpu().contiguous() for name, value in tensors.items()} | {
            "source": self.source
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Backdrop:
        """The backdrop of a `state`."""
        gaussians = WorldGaussians(state["means"], state["quats"], state["scales"])
        scene = WorldSplats(gaussians, state["opacities"], state["colors"])
        return cls(scene, Similarity.from_matrix(state["head_from_scene"].numpy()), state["source"])


def _filled_up(colors: Tensor, bases: int) -> Tensor:
    missing = bases - colors.shape[1]
    if not missing:
        return colors
    return torch.cat([colors, colors.new_zeros(len(colors), missing, 3)], dim=1)


def _check_finite(where: str, name: str, values: Tensor) -> None:
    bad = ~values.isfinite().flatten(start_dim=1).all(dim=1)
    if bool(bad.any()):
        row, count = int(bad.nonzero()[0]), int(bad.sum())
        raise UserError(
            f"{where}: {name} of Gaussian {row} are {values[row].flatten()[:4].tolist()}: not finite ({count} such Gaussians). "
            "`ns-export gaussian-splat` leaves them out: give the .ply that it writes."
        )
