"""Densification of bound Gaussians: gsplat's default strategy, in triangle-local coordinates, under a budget.

Where it departs from `gsplat.DefaultStrategy` (1.4), and why:

- Clones and splits inherit their parent's face. gsplat's operations resize every tensor of the running state together with the
  parameters, so the binding lives there, under "binding".
- Scales are stored relative to the triangle. Thresholds in world units (`grow_scale3d`, `prune_scale3d`, metres x scene scale)
  are therefore compared with the world scale, local scale x size of the face. A split draws its offset in local
  coordinates, which is where gsplat's operation draws it already.
- A face never loses its last Gaussian (GaussianAvatars, section 3.2): regions that are rarely seen would empty, and show as
  holes as soon as another expression uncovers them.
- Growth stops at `max_gaussians`; of the candidates, those with the largest gradients grow first.
- Opacities are not reset at step 0: a trained avatar that is trained on would be wrecked.

    >>> strategy = BoundStrategy(refine_every=100)
    >>> state = strategy.initialize_state(binding=binding, face_sizes=frames.size)
    >>> for step in range(1000):
    ...     _, _, info = rasterize(...)
    ...     strategy.step_pre_backward(params, optimizers, state, step, info)
    ...     loss.backward()
    ...     strategy.step_post_backward(params, optimizers, state, step, info)
    ...     binding = state["binding"]
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

import torch
from gsplat.strategy import DefaultStrategy
from gsplat.strategy.ops import duplicate, remove, reset_opa, split
from jaxtyping import Bool, Float, Int
from torch import Tensor

from edit3dgs_ns.splats.gsplat_version import check_gsplat

Parameters = MutableMapping[str, torch.nn.Parameter]
Optimizers = Mapping[str, torch.optim.Optimizer]


@dataclass
class BoundStrategy(DefaultStrategy):
    """gsplat's default densification for Gaussians bound to faces. `state["binding"]` is always up to date."""

    max_gaussians: int = 100_000
    """Growth stops here."""

    def __post_init__(self) -> None:
        check_gsplat()

    def initialize_state(  # type: ignore[override]
        self,
        scene_scale: float = 1.0,
        *,
        binding: Int[Tensor, " gaussians"],
        face_sizes: Float[Tensor, " faces"],
    ) -> dict[str, Any]:
        """The running state.

        Args:
            scene_scale: multiplies the thresholds in metres.
            binding: the face of every Gaussian.
            face_sizes: size of every face in metres, in any one pose (sizes hardly change with the expression).
        """
        state = super().initialize_state(scene_scale)
        # In a tuple: gsplat's operations treat every tensor of the state as one row per Gaussian.
        return {**state, "binding": binding, "face_sizes": (face_sizes.detach(),)}

    def step_post_backward(
        self,
        params: Parameters,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Gathers gradients; every `refine_every` steps grows and prunes; every `reset_every` (not at 0) resets opacities."""
        if step >= self.refine_stop_iter:
            return
        self._update_state(params, state, info, packed=packed)
        due = step > self.refine_start_iter and step % self.refine_every == 0
        if due and step % self.reset_every >= self.pause_refine_after_reset:
            grown = self._grow_gs(params, optimizers, state, step)
            pruned = self._prune_gs(params, optimizers, state, step)
            if self.verbose:
                print(
                    f"Step {step}: {grown[0]} duplicated, {grown[1]} split, {pruned} pruned, {len(params['means'])} now."
                )
            for key in ("grad2d", "count", "radii"):
                if state.get(key) is not None:
                    state[key].zero_()
        if step > 0 and step % self.reset_every == 0:
            reset_opa(params=params, optimizers=optimizers, state=state, value=self.prune_opa * 2.0)  # type: ignore[arg-type]

    @torch.no_grad()
    def _update_state(
        self, params: Parameters, state: dict[str, Any], info: dict[str, Any], packed: bool = False
    ) -> None:
        """Adds up the image gradients of visible Gaussians (in units of half the image), and how often they were seen."""
        assert not packed
        means2d, visible = info[self.key_for_gradient], info["radii"] > 0
        gradients = means2d.absgrad if self.absgrad else means2d.grad
        half = gradients.new_tensor([info["width"] / 2, info["height"] / 2])
        norms = (gradients * half * info["n_cameras"]).norm(dim=-1)
        widths = info["radii"].amax(dim=0) / max(info["width"], info["height"])
        for key in ("grad2d", "count", "radii"):
            if key in state and state[key] is None:
                state[key] = torch.zeros_like(norms[0])
        state["grad2d"] += torch.where(visible, norms, 0).sum(dim=0)
        state["count"] += visible.sum(dim=0)
        if self.refine_scale2d_stop_iter > 0:
            torch.maximum(state["radii"], widths, out=state["radii"])

    @torch.no_grad()
    def _grow_gs(
        self, params: Parameters, optimizers: Optimizers, state: dict[str, Any], step: int
    ) -> tuple[int, int]:
        gradients = state["grad2d"] / state["count"].clamp_min(1)
        large = _largest_world_scale(params, state) > self.grow_scale3d * state["scene_scale"]
        wanted = gradients > self.grow_grad2d
        if step < self.refine_scale2d_stop_iter:
            too_wide = state["radii"] > self.grow_scale2d
            wanted, large = wanted | too_wide, large | too_wide
        wanted = _largest(gradients, wanted, self.max_gaussians - len(gradients))
        cloned, divided = wanted & ~large, wanted & large
        num_cloned, num_divided = int(cloned.sum()), int(divided.sum())
        if num_cloned:
            duplicate(params=params, optimizers=optimizers, state=state, mask=cloned)  # type: ignore[arg-type]
        if num_divided:
            # The clones just appended are not split in the same round.
            divided = torch.cat([divided, divided.new_zeros(num_cloned)])
            split(
                params=params,
                optimizers=optimizers,
                state=state,
                mask=divided,
                revised_opacity=self.revised_opacity,
            )  # type: ignore[arg-type]
        return num_cloned, num_divided

    @torch.no_grad()
    def _prune_gs(self, params: Parameters, optimizers: Optimizers, state: dict[str, Any], step: int) -> int:
        opacities = torch.sigmoid(params["opacities"].flatten())
        doomed = opacities < self.prune_opa
        if step > self.reset_every:
            doomed |= _largest_world_scale(params, state) > self.prune_scale3d * state["scene_scale"]
            if step < self.refine_scale2d_stop_iter:
                doomed |= state["radii"] > self.prune_scale2d
        doomed = spare_last_of_face(doomed, state["binding"], opacities)
        num_doomed = int(doomed.sum())
        if num_doomed:
            remove(params=params, optimizers=optimizers, state=state, mask=doomed)  # type: ignore[arg-type]
        return num_doomed


def spare_last_of_face(
    doomed: Bool[Tensor, " gaussians"],
    binding: Int[Tensor, " gaussians"],
    opacities: Float[Tensor, " gaussians"],
) -> Bool[Tensor, " gaussians"]:
    """`doomed` without the most opaque Gaussian of every face that would lose all of its Gaussians."""
    num_faces = int(binding.max()) + 1 if len(binding) else 0
    survivors = torch.bincount(binding[~doomed], minlength=num_faces)
    at_risk = (survivors == 0)[binding].nonzero()[:, 0]
    # Sorted by opacity, the last one written to a face's slot is its most opaque Gaussian; a loop-free arg-max per face.
    by_opacity = at_risk[torch.argsort(opacities[at_risk], stable=True)]
    keeper = torch.full((num_faces,), -1, dtype=torch.long, device=binding.device)
    rank = torch.arange(len(by_opacity), device=binding.device)
    keeper.scatter_reduce_(0, binding[by_opacity].long(), rank, reduce="amax")
    spared = doomed.clone()
    spared[by_opacity[keeper[keeper >= 0]]] = False
    return spared


def _largest_world_scale(params: Parameters, state: Mapping[str, Any]) -> Float[Tensor, " gaussians"]:
    (face_sizes,) = state["face_sizes"]
    local = torch.exp(params["scales"]).amax(dim=-1)
    return local * face_sizes.to(local.device)[state["binding"]]


def _largest(
    values: Float[Tensor, " gaussians"], wanted: Bool[Tensor, " gaussians"], most: int
) -> Bool[Tensor, " gaussians"]:
    """`wanted`, reduced to the `most` with the largest values."""
    if int(wanted.sum()) <= most:
        return wanted
    kept = torch.zeros_like(wanted)
    if most > 0:
        kept[torch.where(wanted, values, values.new_full((), -torch.inf)).topk(most).indices] = True
    return kept
