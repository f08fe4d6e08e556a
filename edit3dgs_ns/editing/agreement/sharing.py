"""Agreement of the views of a batch: key views of each step, shared attention and shared predictions.

At every denoising step some views are key views (see `key_views`). Their attention is shared and handed on to the others (see
    `attention`), and so is what is predicted for each surface point (see `shared_predictions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from edit3dgs_ns.editing.agreement.attention import SharedAttention
from edit3dgs_ns.editing.agreement.correspondence import Correspondence, CorrespondenceKind
from edit3dgs_ns.editing.agreement.key_views import draw_key_views, order_around_head, runs_of
from edit3dgs_ns.editing.agreement.shared_predictions import SharedPredictions
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.noise_levels import SHARED_UNTIL
from edit3dgs_ns.editing.predictions import VariancePreservingSpace
from edit3dgs_ns.errors import UserError

NEVER = 1.0
"""A noise level that only pure noise has, of which nothing is shared."""


@dataclass(frozen=True)
class SharingOptions:
    """How the views of a batch are made to agree; see `EditorConfig` for the meaning to a user."""

    correspondence: CorrespondenceKind = "none"
    views_per_key: int = 5
    self_attention_below: int = 100
    share_prediction_until: float | None = None
    """None for the model's own level; 0 shares the last step too."""

    def __post_init__(self) -> None:
        if self.views_per_key < 1:
            raise UserError(f"views_per_key {self.views_per_key}: expected at least 1.")
        if not 0 <= self.until <= 1:
            raise UserError(
                f"share_prediction_until {self.share_prediction_until}: expected a noise level from 0 to 1."
            )

    @property
    def until(self) -> float:
        """Noise level down to which predictions are shared."""
        return SHARED_UNTIL if self.share_prediction_until is None else self.share_prediction_until

    def completed(self, own: float) -> SharingOptions:
        """With the model's own level where none is given."""
        return self if self.share_prediction_until is not None else replace(self, share_prediction_until=own)

    @property
    def shares_predictions(self) -> bool:
        """Not attention alone."""
        return self.correspondence != "none" and self.until < NEVER

    def settings(self) -> dict[str, Any]:
        """As JSON values; None where an option has no meaning."""
        shared = self.correspondence != "none"
        return {
            "correspondence": self.correspondence,
            "views_per_key": self.views_per_key if shared else None,
            "self_attention_below": self.self_attention_below if shared else None,
            "share_prediction_until": self.until if self.shares_predictions else None,
        }


class ViewSharing:
    """The sharing of one batch.

    ```
    with sharing.attached():
        keys = sharing.begin_step(step)
        with sharing.attention.key_pass(): ...           # predict the key views
        with sharing.attention.injected_pass(views): ... # predict the others
        predicted = sharing.agree(predicted, noisy, t)
        sharing.end_step()
    ```

    Args:
        options: what is shared.
        correspondence: which positions of two views show the same surface point.
        request: the batch.
        unet: whose attention is shared.
        scheduler: of the loop.
        latent_size: height and width of the latents.
        branches: guidance branches.
        anchor_latents: clean latents of the request's anchors, as the UNet sees them; None if it has none.
    """

    def __init__(
        self,
        options: SharingOptions,
        correspondence: Correspondence,
        request: EditRequest,
        *,
        unet: Any,
        scheduler: Any,
        latent_size: tuple[int, int],
        branches: int,
        anchor_latents: Float[Tensor, "anchors channels h w"] | None = None,
    ):
        self._options, self._seed = options, request.seed
        self._runs = runs_of(
            order_around_head(request.c2w, request.timesteps), options.views_per_key, request.anchors
        )
        self.attention = SharedAttention(unet, correspondence, latent_size, branches=branches)
        self._predictions = (
            SharedPredictions(
                VariancePreservingSpace(scheduler),
                correspondence,
                options.until,
                request.anchors,
                anchor_latents,
            )
            if options.shares_predictions
            else None
        )
        self._keys: tuple[int, ...] = ()

    @contextmanager
    def attached(self) -> Iterator[ViewSharing]:
        """The UNet's attention is shared inside."""
        with self.attention:
            yield self

    def is_on(self, t: Tensor | float) -> bool:
        """Views share something at this timestep."""
        return bool(t >= self._options.self_attention_below)

    def begin_step(self, step: int) -> Sequence[int]:
        """A denoising step begins; its key views."""
        self._keys = draw_key_views(self._runs, self._seed, step)
        self.attention.begin_step(self._keys)
        return self._keys

    def agree(
        self,
        predicted: Float[Tensor, "views channels h w"],
        noisy: Float[Tensor, "views channels h w"],
        t: Tensor | float,
        *,
        last: bool = False,
    ) -> Float[Tensor, "views channels h w"]:
        """The predictions of all views, which share what they are to share; see `SharedPredictions`."""
        if self._predictions is None or not self._predictions.shares_step(last=last):
            return predicted
        return self._predictions(predicted, noisy, t, self._keys, self.attention.finest_layer())

    def end_step(self) -> None:
        """Free what the step needed."""
        self._keys = ()
        self.attention.end_step()
