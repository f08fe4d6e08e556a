"""The Gaussians of a trained avatar with all that poses them: head, motion, pose-dependent appearance. Needs no Nerfstudio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.expression_offset import ExpressionOffset
from edit3dgs_ns.flame.model import FlameModel, FlamePose
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.splats.avatar_state import check_avatar_numbers
from edit3dgs_ns.splats.binding import TriangleFrames, WorldGaussians, local_to_world
from edit3dgs_ns.splats.ply import BoundGaussians
from edit3dgs_ns.splats.rig import OFFSET_BUFFERS, POSE_PARAMETERS, TrackedHead
from edit3dgs_ns.splats.spherical_harmonics import bases_of
from edit3dgs_ns.splats.world_splats import WorldSplats

if TYPE_CHECKING:
    from edit3dgs_ns.splats.appearance import PoseDependentAppearance
    from edit3dgs_ns.splats.rig_maps import Surface

_GAUSSIANS, _APPEARANCE = "gauss_params.", "appearance."


@dataclass(frozen=True)
class RiggedGaussians:
    """An avatar that can be posed."""

    params: Mapping[str, Tensor]
    """By the names of BoundGaussians; also expression_means and expression_colors where the avatar has them."""
    binding: Int[Tensor, " gaussians"]
    """The face of each Gaussian."""
    head: TrackedHead
    appearance: PoseDependentAppearance
    sh_degree: int
    """Degree of the spherical harmonics in use, 0 to 3."""

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor], assets: FlameAssets) -> RiggedGaussians:
        """From a model's state, as `splats.checkpoints.model_state` reads it.

        Raises:
            ValueError: it holds no rigged avatar, or one of another head model than `assets`.
        """
        if not {"gauss_params.means", "binding", "head.shape"} <= state.keys():
            raise UserError("The checkpoint holds no rigged avatar (no Gaussians that are bound to a head).")
        check_avatar_numbers(state, "The checkpoint")
        head = TrackedHead(FlameModel.from_assets(assets), motion_of(state))
        for name in OFFSET_BUFFERS:
            setattr(head, name, state.get(f"head.{name}", getattr(head, name)).clone())
        head.forget_offset()
        binding = state["binding"]
        if int(binding.max()) >= len(head.faces):
            raise UserError(
                f"A Gaussian is bound to face {int(binding.max())}; the head model {assets.source} has {len(head.faces)} "
                "faces. Give the head model that the avatar was trained with."
            )
        named = {
            key.removeprefix(_GAUSSIANS): value for key, value in state.items() if key.startswith(_GAUSSIANS)
        }
        appearance = _appearance(state, head)
        return cls(named, binding, head, appearance, int(state.get("sh_degree_reached", 3)))

    @classmethod
    def from_files(
        cls, gaussians: BoundGaussians, motion: FlameMotion, assets: FlameAssets
    ) -> RiggedGaussians:
        """From GaussianAvatars' two files; such an avatar has no pose-dependent appearance."""
        params = {name: value for name, value in vars(gaussians).items() if name != "binding"}
        head = TrackedHead(FlameModel.from_assets(assets), motion)
        return cls(params, gaussians.binding, head, _appearance({}, head), gaussians.sh_degree)

    def state(self) -> dict[str, Tensor]:
        """The state that a model of `rigged-splatfacto` has: what `from_state` reads, on the CPU."""
        state = {f"{_GAUSSIANS}{name}": value for name, value in self.params.items()}
        state |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        state |= {f"{_APPEARANCE}{name}": value for name, value in self.appearance.state_dict().items()}
        state |= {"binding": self.binding, "sh_degree_reached": torch.tensor(self.sh_degree)}
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    def to(self, device: torch.device | str) -> RiggedGaussians:
        """The same on a device; the head moves along."""
        params = {name: value.to(device) for name, value in self.params.items()}
        head, appearance = self.head.to(device), self.appearance.to(device)
        return replace(self, params=params, binding=self.binding.to(device), head=head, appearance=appearance)

    def splats(self, pose: FlamePose, frames: TriangleFrames | None = None) -> WorldSplats:
        """What is drawn in a pose of one frame; differentiable in `params`.

        Args:
            pose: one frame.
            frames: the head's triangle frames in this pose, where they are known already.
        """
        frames = self.head.frames_of(pose) if frames is None else frames
        gaussians, colors = pose_gaussians(
            self.params, self.sh_degree, self.appearance, self.binding, self.head.under_offset(pose), frames
        )
        return WorldSplats(gaussians, torch.sigmoid(self.params["opacities"][:, 0]), colors)

    @torch.no_grad()
    def surface(self, pose: FlamePose) -> Surface:
        """The posed Gaussians with their rest positions, for maps of which surface point every pixel shows."""
        from edit3dgs_ns.splats.rig_maps import Surface

        shown, p = self.splats(pose), self.params
        rest = local_to_world(p["means"], p["quats"], p["scales"], self.binding, self.head.rest_frames())
        return Surface(shown.gaussians, shown.opacities, rest.means, shown.opacities.new_zeros(len(shown), 0))

    def bound(self) -> BoundGaussians:
        """What GaussianAvatars' PLY file holds."""
        return bound_gaussians(self.state())


def pose_gaussians(
    params: Mapping[str, Tensor],
    sh_degree: int,
    appearance: PoseDependentAppearance,
    binding: Int[Tensor, " gaussians"],
    pose: FlamePose,
    frames: TriangleFrames,
) -> tuple[WorldGaussians, Float[Tensor, "gaussians bases 3"]]:
    """Gaussians in world coordinates and their SH coefficients in one frame; differentiable.

    The pose is what the head shows (`TrackedHead.under_offset`), and `frames` are the triangle frames of that.
    """
    offsets = [params.get(name) for name in ("expression_means", "expression_colors")]
    stored = params["means"], params["features_dc"], params["features_rest"]
    means, colors = appearance(*stored, sh_degree, pose, frames, binding, *offsets)
    return local_to_world(means, params["quats"], params["scales"], binding, frames), colors


def colors_of_degree(params: Mapping[str, Tensor], sh_degree: int) -> Float[Tensor, "gaussians bases 3"]:
    """SH coefficients up to a degree, as they are stored: without light and expression."""
    rest = params["features_rest"][:, : bases_of(sh_degree) - 1]
    return torch.cat([params["features_dc"][:, None], rest], dim=1)


def bound_gaussians(state: Mapping[str, Tensor]) -> BoundGaussians:
    """The Gaussians in a model's state."""
    names = [field.name for field in fields(BoundGaussians) if field.name != "binding"]
    return BoundGaussians(**{name: state[f"{_GAUSSIANS}{name}"] for name in names}, binding=state["binding"])


def motion_of(state: Mapping[str, Tensor]) -> FlameMotion:
    """The head's parameters in a model's state, without its offset of expression."""
    pose = {name: state[f"head.pose.{name}"] for name in POSE_PARAMETERS}
    return FlameMotion(shape=state["head.shape"], static_offset=state["head.static_offset"], **pose)


def offset_of(state: Mapping[str, Tensor], names: Sequence[str] | None) -> ExpressionOffset | None:
    """The offset of expression in a model's state, scaled; None where there is none.

    Args:
        state: of the model.
        names: of the head's expressions, where they have names.
    """
    if "head.expression_offset" not in state:
        return None
    expr, jaw, scale = (state[f"head.{name}"] for name in OFFSET_BUFFERS)
    offset = ExpressionOffset(expr, jaw, None if names is None else tuple(names)).scaled(float(scale))
    return None if offset.is_zero else offset


def lost_in_ply(state: Mapping[str, Tensor]) -> list[str]:
    """What of a model's state GaussianAvatars' format has no place for."""
    found = []
    if "gauss_params.expression_means" in state:
        found.append("offsets of place and colour that follow the expression")
    if "appearance.light" in state and bool(state["appearance.light"].any()):
        found.append("light that changes as the head turns")
    return found


def _appearance(state: Mapping[str, Tensor], head: TrackedHead) -> PoseDependentAppearance:
    """The pose-dependent appearance in a state; none where the state has none."""
    from edit3dgs_ns.splats.appearance import PoseDependentAppearance  # numba: loaded where used
    from edit3dgs_ns.splats.motion_code import motion_features

    features = motion_features(head.pose_at(0.0)).shape[-1]
    mean = state.get("appearance.code_mean", torch.zeros(features))
    basis = state.get("appearance.code_basis", torch.zeros(features, 0))
    appearance = PoseDependentAppearance(head.rest_frames(), mean, basis)
    if "appearance.light" in state:
        appearance.light.data = state["appearance.light"].clone()
    appearance.set_rest(head.rest_frames())
    return appearance
