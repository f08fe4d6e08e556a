"""Appearance that depends on the pose: relighting, and offsets of means and colours that follow the expression."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats.binding import TriangleFrames
from edit3dgs_ns.splats.motion_code import motion_code, motion_features
from edit3dgs_ns.splats.relighting import NUM_TERMS, apply_gain, light_gain


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
        colors: Float[Tensor, "gaussians bases 3"],
        pose: FlamePose,
        frames: TriangleFrames,
        binding: Int[Tensor, " gaussians"],
        mean_offsets: Float[Tensor, "gaussians rank 3"] | None = None,
        color_offsets: Float[Tensor, "gaussians rank 3"] | None = None,
    ) -> tuple[Float[Tensor, "gaussians 3"], Float[Tensor, "gaussians bases 3"]]:
        """Triangle-local means and SH coefficients in one pose.

        Args:
            means: triangle-local, without offsets.
            colors: SH coefficients, at rest; overwritten where nothing is trained.
            pose: of one timestep.
            frames: the triangle frames of that pose.
            binding: the face of each Gaussian.
            mean_offsets: of the triangle-local means, per unit of the code.
            color_offsets: of the SH coefficients of degree 0, per unit of the code.
        """
        if self.rank and mean_offsets is not None and color_offsets is not None:
            # Detached: the offsets must not be what fine-tunes the motion.
            code = motion_code(motion_features(pose)[0].detach(), self.code_mean, self.code_basis)
            means = means + torch.einsum("nkc,k->nc", mean_offsets, code)
            shift = torch.einsum("nkc,k->nc", color_offsets, code)
            colors = torch.cat([colors[:, :1] + shift[:, None], colors[:, 1:]], dim=1)
        if self.relights:
            gain = light_gain(self.light, frames.rotation[..., 1], self.rest_normals)
            colors = apply_gain(colors, gain, binding, overwrite=True)
        return means, colors
