"""Synchronised predictions: the clean latents of a surface point become the same in every view that shows it.

Shared attention alone moves little where a UNet decides the appearance (a hue, a style) in its convolutions, from the noise of
    each view. So the clean latents that are predicted at a denoising step are brought into agreement before the scheduler takes
    the step: the key views, then every other view with them. This is the synchronisation of clean predictions of Liu et al.,
    "Text-Guided Texturing by Synchronized Multi-View Diffusion" (SyncMVD, SIGGRAPH Asia 2024), section 4.2, without a texture:
    the positions of views are joined directly, and only while the appearance is decided. Later every view makes its own detail.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import Correspondence, LatentMatches, LayerFeatures
from edit3dgs_ns.editing.predictions import PredictionSpace


class SharedPredictions:
    """Brings the predictions of a batch's views into agreement.

    Args:
        space: says what the predictions of the loop's scheduler mean.
        correspondence: says which positions show the same surface point.
        until: the lowest noise level at which predictions are shared.
        anchors: views whose clean latents are known, for they were edited in an earlier round: they are given, not predicted,
            so that every later round takes over the appearance of the first.
        known: these latents, as the network sees them (scaled).
        scale: factor of the latents before they are compared across positions, where these are normalised each in a way of its
            own.
        offset: what is added after that.
    """

    def __init__(
        self,
        space: PredictionSpace,
        correspondence: Correspondence,
        until: float,
        anchors: Sequence[int] = (),
        known: Float[Tensor, "anchors channels height width"] | None = None,
        scale: Float[Tensor, "1 channels height width"] | None = None,
        offset: Float[Tensor, "1 channels height width"] | None = None,
    ):
        self._space, self._correspondence, self._until = space, correspondence, until
        self._scale, self._offset = scale, offset
        self._anchors, self._known = list(anchors), known

    def shares_step(self, *, last: bool) -> bool:
        """Whether a step may be shared: the last one of a schedule only with `until` 0.

        Its prediction is what the view becomes, detail and all, and schedules of few steps that are shifted to much noise end
        above any other level.
        """
        return not last or self._until == 0

    def __call__(
        self,
        predicted: Float[Tensor, "views channels height width"],
        noisy: Float[Tensor, "views channels height width"],
        t: Tensor | float,
        keys: Sequence[int],
        layer: LayerFeatures | None = None,
    ) -> Float[Tensor, "views channels height width"]:
        """The predictions of all views of the batch after they have come to agree.

        Args:
            predicted: what the scheduler would be given.
            noisy: the latents as the network was given them.
            t: their timestep.
            keys: positions of the key views.
            layer: the finest attention layer of this step, where the correspondence needs features.
        """
        if self._space.noise_level(t) < self._until or not self._space.knows_clean(t):
            return predicted
        clean = self._space.clean(predicted, noisy, t)
        common = self._agreed(self._with_anchors(clean), keys, layer)
        return self._space.moved(predicted, self._with_anchors(common) - clean, t)

    def _agreed(
        self,
        clean: Float[Tensor, "views channels height width"],
        keys: Sequence[int],
        layer: LayerFeatures | None,
    ) -> Float[Tensor, "views channels height width"]:
        if self._scale is None or self._offset is None:
            return agreed(clean, keys, self._correspondence, layer)
        common = agreed(clean * self._scale + self._offset, keys, self._correspondence, layer)
        return (common - self._offset) / self._scale

    def _with_anchors(self, clean: Float[Tensor, "views channels height width"]) -> Tensor:
        """Clean latents, those of the anchors as they are known."""
        if self._known is None:
            return clean
        result = clean.clone()
        result[self._anchors] = self._known.to(clean)
        return result


def agreed(
    values: Float[Tensor, "views channels height width"],
    keys: Sequence[int],
    correspondence: Correspondence,
    layer: LayerFeatures | None = None,
) -> Float[Tensor, "views channels height width"]:
    """Values of latents, made equal where views show the same surface point; those that nothing matches stay as they are."""
    size = (values.shape[2], values.shape[3])
    result = values.clone()
    others = [view for view in range(len(values)) if view not in keys]
    for views in (list(keys), others):
        table = result.permute(0, 2, 3, 1).flatten(0, 2).clone()
        for view, matches in zip(views, correspondence.match_latents(views, keys, size, layer), strict=True):
            result[view] = _mixed(values[view], table, matches)
    return result


def _mixed(
    own: Float[Tensor, "channels height width"],
    table: Float[Tensor, "all_positions channels"],
    matches: LatentMatches,
) -> Float[Tensor, "channels height width"]:
    """A view's values with the common ones where these are trusted."""
    common = F.embedding_bag(matches.index, table, per_sample_weights=matches.weight, mode="sum")
    return own + matches.trust.view(own.shape[1:]) * (common.T.view(own.shape) - own)
