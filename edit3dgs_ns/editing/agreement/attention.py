"""Key-view attention and feature injection: the views of a batch agree because they share self-attention.

Source: Chen, Laina and Vedaldi, "DGE: Direct Gaussian 3D Editing by Consistent Multi-view Editing", ECCV 2024,
    section 3 (attention among key views, then injection along epipolar lines).

Set on a UNet through diffusers' `set_attn_processor`, on the self-attention layers (`attn1`) alone, and taken off
again at the end:

```
with SharedAttention(unet, correspondence, latent_size, branches=3) as shared:
    shared.begin_step(keys)
    with shared.key_pass():
        unet(...)                                    # the key views see each other and are recorded
    for views in parts_of_the_others:
        with shared.injected_pass(views):
            unet(...)                                # the others take what the key views found
    unet(...)                                        # outside: every view by itself
```

A forward's batch is ordered (branch, view): all views of the first guidance branch, then all of the next. The
attention itself is computed by the processors that were there before, so that attention slicing and the like
stay in force; nothing here holds a (tokens x tokens) tensor.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from edit3dgs_ns.editing.agreement.correspondence import LayerFeatures, TokenMatches

if TYPE_CHECKING:
    from edit3dgs_ns.editing.agreement.correspondence import Correspondence

_DECIDING = 0
"""The guidance branch whose features decide the matches for all (DGE: that of the image)."""


@dataclass(frozen=True)
class _Pass:
    """Views and guidance branches in the batch of a forward."""

    views: tuple[int, ...]
    branches: tuple[int, ...]
    are_keys: bool


@dataclass
class _KeyRecord:
    """Outputs (and inputs) of one layer in the key views' pass, for the other views."""

    outputs: Float[Tensor, "branches keys tokens channels"]
    queries: Float[Tensor, "keys tokens channels"] | None = None
    """The layer's inputs in the branch that decides; None where matching needs no features."""


class SharedAttention:
    """Connects the self-attention of a batch's views while it is entered.

    Args:
        unet: any diffusers model with `attn_processors` and `set_attn_processor`.
        correspondence: finds the key views' positions that show the same surface point.
        latent_size: height and width of the latents, whose fractions are the layers' token grids.
        branches: guidance branches; the features of the first decide the matches for all.
    """

    def __init__(
        self,
        unet: Any,
        correspondence: Correspondence,
        latent_size: tuple[int, int],
        *,
        branches: int = 1,
    ):
        self._unet, self._correspondence = unet, correspondence
        self._latent_size, self._branches = latent_size, branches
        self._former: dict[str, Any] = {}
        self._pass: _Pass | None = None
        self._keys: tuple[int, ...] = ()
        self._records: dict[str, _KeyRecord] = {}
        self._matches: dict[Any, TokenMatches] = {}

    def __enter__(self) -> SharedAttention:
        self._former = dict(self._unet.attn_processors)
        self._unet.set_attn_processor(
            {
                name: _SelfAttention(name, former, self) if name.endswith("attn1.processor") else former
                for name, former in self._former.items()
            }
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unet.set_attn_processor(dict(self._former))
        self._forget()

    def begin_step(self, keys: Sequence[int]) -> None:
        """A denoising step begins, with these views as key views; () for none."""
        self._forget()
        self._keys = tuple(keys)

    def end_step(self) -> None:
        """Free what the key views left."""
        self._forget()

    @contextmanager
    def key_pass(self, branches: Sequence[int] | None = None) -> Iterator[None]:
        """The forwards inside hold the key views, in these branches (all, if not given)."""
        with self._expect(_Pass(self._keys, self._all(branches), are_keys=True)):
            yield

    @contextmanager
    def injected_pass(self, views: Sequence[int], branches: Sequence[int] | None = None) -> Iterator[None]:
        """The forwards inside hold these views, in these branches (all, if not given).

        Of passes that hold some branches only, the one with the first branch comes first.
        """
        with self._expect(_Pass(tuple(views), self._all(branches), are_keys=False)):
            yield

    def finest_layer(self) -> LayerFeatures | None:
        """What this step's passes saw and found at the layer with most tokens, the last of them (the most meaningful); None
        where matching needs no features."""
        if not self._correspondence.needs_features:
            return None
        name, record = max(
            enumerate(self._records.items()), key=lambda item: (item[1][1].outputs.shape[2], item[0])
        )[1]
        assert record.queries is not None
        found = {
            view: TokenMatches(
                *(part[row : row + 1] for part in (matches.index, matches.weight, matches.keys))
            )
            for (views, place), matches in self._matches.items()
            if place == name
            for row, view in enumerate(views)
        }
        return LayerFeatures(token_grid(self._latent_size, record.outputs.shape[2]), record.queries, found)

    # -- at a layer ------------------------------------------------------------------------------------------

    def attend(
        self, layer: _SelfAttention, attn: Any, hidden: Float[Tensor, "rows tokens channels"]
    ) -> Tensor:
        """The output of one self-attention layer in the pass that is under way."""
        now = self._pass
        if now is None:
            return layer.former(attn, hidden)
        split = hidden.unflatten(0, (len(now.branches), len(now.views)))
        shared = self._attend_keys if now.are_keys else self._attend_others
        return shared(layer, attn, split, now).flatten(0, 1)

    def _attend_keys(
        self,
        layer: _SelfAttention,
        attn: Any,
        hidden: Float[Tensor, "branches keys tokens channels"],
        now: _Pass,
    ) -> Float[Tensor, "branches keys tokens channels"]:
        """Every key view sees the keys and values of all, within its branch."""
        output = joint_attention(layer.former, attn, hidden)
        record = self._records.get(layer.name)
        if record is None:
            record = _KeyRecord(output.new_empty(self._branches, *output.shape[1:]))
            self._records[layer.name] = record
        record.outputs[list(now.branches)] = output
        if self._correspondence.needs_features and _DECIDING in now.branches:
            record.queries = hidden[now.branches.index(_DECIDING)].clone()
        return output

    def _attend_others(
        self,
        layer: _SelfAttention,
        attn: Any,
        hidden: Float[Tensor, "branches views tokens channels"],
        now: _Pass,
    ) -> Float[Tensor, "branches views tokens channels"]:
        """Take the key views' output where they show the same surface point; elsewhere attend to the view itself."""
        record, matches = self._records[layer.name], self._match(layer, hidden, now)
        whole = len(now.branches) == self._branches
        found = record.outputs if whole else record.outputs[list(now.branches)]
        output = blend(found, matches.keys, matches.index, matches.weight)
        attend_to_self(layer.former, attn, hidden, (matches.index < 0).all(dim=1), output)
        return output

    def _match(
        self, layer: _SelfAttention, hidden: Float[Tensor, "branches views tokens channels"], now: _Pass
    ) -> TokenMatches:
        """Found by the deciding branch and kept for the others, or, where features do not count, for all layers of
        a size."""
        grid, features = token_grid(self._latent_size, hidden.shape[2]), self._correspondence.needs_features
        place = (now.views, layer.name if features else grid)
        if place not in self._matches:
            assert not features or _DECIDING in now.branches, "the first branch comes first"
            self._matches[place] = self._correspondence.match(
                now.views,
                self._keys,
                grid,
                hidden[now.branches.index(_DECIDING)] if features else None,
                self._records[layer.name].queries,
            )
        return self._matches[place]

    # -- state -----------------------------------------------------------------------------------------------

    def _all(self, branches: Sequence[int] | None) -> tuple[int, ...]:
        return tuple(range(self._branches) if branches is None else branches)

    @contextmanager
    def _expect(self, coming: _Pass) -> Iterator[None]:
        assert self._keys, "begin_step(keys) comes first"
        self._pass = coming
        try:
            yield
        finally:
            self._pass = None

    def _forget(self) -> None:
        self._pass, self._keys = None, ()
        self._records.clear()
        self._matches.clear()


class _SelfAttention:
    """The processor of one layer: asks the batch's `SharedAttention`, and computes with the former processor."""

    def __init__(self, name: str, former: Any, shared: SharedAttention):
        self.name, self.former, self._shared = name, former, shared

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        if encoder_hidden_states is not None or attention_mask is not None:
            # Not a view looking at itself: some models use attn1 for the text.
            return self.former(attn, hidden_states, encoder_hidden_states, attention_mask)
        return self._shared.attend(self, attn, hidden_states)


def joint_attention(
    processor: Any, attn: Any, hidden: Float[Tensor, "branches keys tokens channels"]
) -> Float[Tensor, "branches keys tokens channels"]:
    """Self-attention over the tokens of all key views, each branch by itself."""
    keys = hidden.shape[1]
    joint = hidden.flatten(1, 2)
    if not hasattr(processor, "slice_size"):
        return processor(attn, joint).unflatten(1, (keys, -1))
    # Sliced attention holds (queries x tokens) scores: keep the queries to one view.
    return torch.stack([processor(attn, hidden[:, key], joint) for key in range(keys)], dim=1)


def blend(
    outputs: Float[Tensor, "branches keys tokens channels"],
    keys: Int64[Tensor, "views two"],
    index: Int64[Tensor, "views two tokens"],
    weight: Float[Tensor, "views two tokens"],
) -> Float[Tensor, "branches views tokens channels"]:
    """The key views' outputs at the matched tokens, weighted; 0 where nothing matches."""
    branches, _, tokens, channels = outputs.shape
    flat = outputs.flatten(1, 2)
    blended = outputs.new_zeros(branches, index.shape[0], tokens, channels)
    for slot in range(index.shape[1]):
        place = keys[:, slot, None] * tokens + index[:, slot].clamp(min=0)
        taken = flat[:, place.flatten()].unflatten(1, place.shape)
        blended.addcmul_(taken, weight[:, slot, :, None].to(taken.dtype))
    return blended


def attend_to_self(
    processor: Any,
    attn: Any,
    hidden: Float[Tensor, "branches views tokens channels"],
    where: Bool[Tensor, "views tokens"],
    output: Float[Tensor, "branches views tokens channels"],
) -> None:
    """Write each view's own self-attention into `output`, at the tokens `where` alone."""
    for view in range(hidden.shape[1]):
        tokens = where[view].nonzero().squeeze(1)
        if len(tokens):
            output[:, view, tokens] = processor(attn, hidden[:, view, tokens], hidden[:, view])


def token_grid(latent_size: tuple[int, int], tokens: int) -> tuple[int, int]:
    """Height and width of a layer's token grid: the latents' size divided by a whole number."""
    height, width = latent_size
    reduction = round((height * width / tokens) ** 0.5)
    grid = height // reduction, width // reduction
    assert grid[0] * grid[1] == tokens, f"{tokens} tokens do not fit latents of {height} x {width}"
    return grid
