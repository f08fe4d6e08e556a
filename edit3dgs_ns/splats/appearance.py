"""Appearance that depends on the pose: relighting, and offsets of means and colours that follow the expression."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats import cpu_appearance
from edit3dgs_ns.splats.binding import TriangleFrames
from edit3dgs_ns.splats.motion_code import motion_code, motion_features
from edit3dgs_ns.splats.relighting import GRAY, NUM_TERMS, apply_gain, light_gain
from edit3dgs_ns.splats.spherical_harmonics import bases_of


class PoseDependentAppearance(nn.Module):
    """Relights the colours of turning faces, and adds offsets that are linear in the expression's code.

    Args:
        rest: the triangle frames of the head at rest.
        code_mean, code_basis: of `principal_code`; a basis of rank 0 for no offsets.
    """

    light: Tensor
    """(8, 3) see `relighting`; zeros: no effect."""
    code_mean: Tensor
    code_basis: Tensor
    rest_normals: Tensor

    def __init__(
        self,
        rest: TriangleFrames,
        code_mean: Float[Tensor, " features"],
        code_basis: Float[Tensor, "features rank"],
    ):
        super().__init__()
        self.light = nn.Parameter(torch.zeros(NUM_TERMS, 3))
        self.relights = False
        self.register_buffer("code_mean", code_mean)
        self.register_buffer("code_basis", code_basis)
        self.register_buffer("rest_normals", rest.rotation[..., 1], persistent=False)

    @property
    def rank(self) -> int:
        """Length of the expression's code; 0 without offsets."""
        return self.code_basis.shape[1]

    def set_rest(self, rest: TriangleFrames) -> None:
        """Sets the rest pose after the head's shape or the light were replaced."""
        self.rest_normals = rest.rotation[..., 1]
        self.relights = self.relights or bool((self.light != 0).any())

    def forward(
        self,
        means: Float[Tensor, "gaussians 3"],
        dc: Float[Tensor, "gaussians 3"],
        rest: Float[Tensor, "gaussians higher_bases 3"],
        sh_degree: int,
        pose: FlamePose,
        frames: TriangleFrames,
        binding: Int[Tensor, " gaussians"],
        mean_offsets: Float[Tensor, "gaussians rank 3"] | None = None,
        color_offsets: Float[Tensor, "gaussians rank 3"] | None = None,
    ) -> tuple[Float[Tensor, "gaussians 3"], Float[Tensor, "gaussians bases 3"]]:
        """Triangle-local means and SH coefficients in one pose.

        Args:
            means: triangle-local, without offsets.
            dc: SH coefficients of degree 0, at rest.
            rest: those of the higher degrees.
            sh_degree: the degree in use.
            pose: of one timestep.
            frames: the triangle frames of that pose.
            binding: the face of each Gaussian.
            mean_offsets: of the triangle-local means, per unit of the code.
            color_offsets: of the SH coefficients of degree 0, per unit of the code.
        """
        code = gain = None
        if self.rank and mean_offsets is not None and color_offsets is not None:
            # Detached: the offsets must not be what fine-tunes the motion.
            code = motion_code(motion_features(pose)[0].detach(), self.code_mean, self.code_basis)
            means = posed_means(means, mean_offsets, code)
        if self.relights:
            gain = light_gain(self.light, frames.rotation[..., 1], self.rest_normals)
        return means, posed_colors(dc, rest, sh_degree, color_offsets, code, gain, binding)


def posed_means(
    means: Float[Tensor, "gaussians 3"],
    offsets: Float[Tensor, "gaussians rank 3"],
    code: Float[Tensor, " rank"],
) -> Float[Tensor, "gaussians 3"]:
    """Means moved by `offsets . code`; differentiable in both, the code is a constant."""
    if means.device.type == "cpu" and means.dtype == offsets.dtype == code.dtype:
        return cpu_appearance.posed_means(means, offsets, code)
    return means + torch.einsum("nkc,k->nc", offsets, code)


def posed_colors(
    dc: Float[Tensor, "gaussians 3"],
    rest: Float[Tensor, "gaussians higher_bases 3"],
    sh_degree: int,
    offsets: Float[Tensor, "gaussians rank 3"] | None,
    code: Float[Tensor, " rank"] | None,
    gain: Float[Tensor, "faces 3"] | None,
    binding: Int[Tensor, " gaussians"],
) -> Float[Tensor, "gaussians bases 3"]:
    """SH coefficients of the degrees in use, moved by `offsets . code` (degree 0) and as bright as `gain` makes them.

    Differentiable in everything but the code. Without a code or a gain, these have no effect.
    """
    given = [x for x in (dc, rest, offsets, code, gain) if x is not None]
    if dc.device.type == "cpu" and len({x.dtype for x in given}) == 1:
        return cpu_appearance.posed_colors(dc, rest, bases_of(sh_degree), offsets, code, gain, binding, GRAY)
    if offsets is not None and code is not None:
        dc = dc + torch.einsum("nkc,k->nc", offsets, code)
    colors = torch.cat([dc[:, None], rest[:, : bases_of(sh_degree) - 1]], dim=1)
    return colors if gain is None else apply_gain(colors, gain, binding)
