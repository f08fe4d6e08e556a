"""The options of an avatar's model: what `--pipeline.model...` sets. The defaults are those of `rigged-splatfacto-fast`, which also
begins with halved images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nerfstudio.models.splatfacto import SplatfactoModelConfig

Choice = Literal["auto", "on", "off"]


@dataclass
class AvatarModelOptions(SplatfactoModelConfig):
    """Gaussians bound to a FLAME head (GaussianAvatars)."""

    background_color: Literal["random", "black", "white"] = "white"
    """Background of training images and renders; captures are put on white."""
    num_downscales: int = 0
    """How often images are halved at first; every `resolution_schedule` steps it is once less. Edited images never are."""
    resolution_schedule: int = 1000
    """Steps until images are of twice the size; see `num_downscales`."""
    initial_opacity: float = 0.5
    """Opacity of the Gaussians that training starts from. GaussianAvatars starts from 0.1; a short training does not get from there
    to a skin that nothing shines through when it is stretched or seen from elsewhere."""
    sh_degree_interval: int = 1000
    """Steps after which the next degree of spherical harmonics is trained as well, up to sh_degree."""
    warmup_length: int = 500
    """Steps before the first densification."""
    refine_every: int = 250
    """Steps between densifications."""
    stop_split_at: int = 3000
    """Last step with densification."""
    reset_alpha_every: int = 1_000_000
    """Densifications between two resets of all opacities; practically never by default: it costs a short
    training more than it gains."""
    densify_grad_thresh: float = 1e-4
    """Gaussians whose mean image gradient is above this grow."""
    use_absgrad: bool = False
    """Sum absolute instead of signed image gradients for densification (needs a threshold about four times as high)."""
    densify_size_thresh: float = 0.003
    """Growing Gaussians larger than this (metres) are split, smaller ones are cloned."""
    cull_alpha_thresh: float = 0.005
    """Gaussians less opaque than this are pruned, unless they are the last of their face."""
    cull_scale_thresh: float = 0.1
    """Gaussians larger than this (metres) are pruned, once opacities have been reset."""
    stop_screen_size_at: int = 0
    """Until this step, Gaussians that are large on the screen are split or pruned as well; 0 is never."""
    max_gaussians: int = 40_000
    """Growth stops at this number."""
    position_loss_weight: float = 0.01
    """Weight of the loss on the distance of a visible Gaussian from its triangle's centre."""
    position_threshold: float = 1.0
    """Distance, in sizes of the triangle, that is free of this loss."""
    scale_loss_weight: float = 1.0
    """Weight of the loss on the scale of a visible Gaussian."""
    scale_threshold: float = 0.6
    """Scale, in sizes of the triangle, that is free of this loss."""
    initial_spacing: float = 0.0
    """Faces larger than this (metres) start with more than one Gaussian, so that all are about equally far apart; 0: one on each
    face."""
    growth: Literal["gradient", "mcmc"] = "gradient"
    """How Gaussians multiply: where image gradients are large, or drawn from the opaque ones (3DGS-MCMC)."""
    opacity_loss_weight: float = 0.0
    """Weight of a loss that draws the opacity of visible Gaussians towards 1."""
    view_dependence: Choice = "auto"
    """Train how colours change with the direction of view (spherical harmonics above degree 0). `auto`: where the training images
    come from more than one camera; one camera cannot tell a turned head from another view."""
    fill_unseen: Choice = "auto"
    """Lay Gaussians that no training camera shows onto the head model, and give them the colour of the mirrored side. `auto`: where
    the training images come from one camera."""
    clear_background: Choice = "auto"
    """Train Gaussians away that are drawn over pure white, where nobody is: white ones would go unnoticed, until the camera turns.
    `auto`: where the training images come from one camera."""
    relighting: bool = True
    """Train how the capture's light changes the colours of faces that turn in it."""
    expression_rank: int = 0
    """Train offsets of every Gaussian's place and colour that follow the expression, linear in this many numbers; 0: none."""
    scale_position_rate: bool = False
    """Multiply the learning rates of `means` by the extent of the cameras, as GaussianAvatars does."""
    center_tuning: bool = True
    """Keep the mean correction over all training timesteps at zero: an error that all of them share cannot be told from the
    avatar's own shape, and motions that were not trained on come without the correction."""
    fine_tune_motion: bool = True
    """Train the expression and pose of every training timestep as well (their learning rates are optimizers of their own)."""


def chosen(choice: Choice, automatic: bool) -> bool:
    """What an option says; `auto` is `automatic`."""
    return automatic if choice == "auto" else choice == "on"
