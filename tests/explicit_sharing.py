"""Slow oracle of shared attention: a plain editor whose self-attention outputs are replaced by textbook computations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Match = Callable[[int, Sequence[int], Tensor, Tensor], Tensor]
"""`match(view, keys, queries, key_queries)`: for every token of a view (rows) the weights of all tokens of all key views
(columns, one key view after the other), which sum to 1; 0 in all where nothing matches."""


def explicit_attention(attn, queries: Tensor, context: Tensor) -> Tensor:
    """Attention of one row, head by head, in double precision."""
    q, k, v = (
        (x.double() @ layer.weight.double().T)
        for x, layer in ((queries, attn.to_q), (context, attn.to_k), (context, attn.to_v))
    )
    width = q.shape[-1] // attn.heads
    heads = []
    for head in range(attn.heads):
        part = slice(head * width, (head + 1) * width)
        heads.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(width), dim=-1) @ v[:, part])
    out = attn.to_out[0]
    return torch.cat(heads, dim=-1) @ out.weight.double().T + out.bias.double()


def strengthen_self_attention(editor) -> None:
    """Make the self-attention of a tiny random editor sharp, and its outputs large enough to be seen in the image."""
    with torch.no_grad():
        for name, module in editor.unet.named_modules():
            if name.endswith("attn1"):
                module.to_q.weight *= 5
                module.to_out[0].weight *= 20


def share_explicitly(
    editor, num_views: int, keys_of_step: Callable[[int], Sequence[int]], match: Match
) -> None:
    """Make an editor that shares nothing share its self-attention, from now on.

    Args:
        editor: it has to denoise all views in one forward.
        num_views: of every batch.
        keys_of_step: key views of a denoising step.
        match: where the other views' tokens are found in the key views, by the first branch's layer inputs.
    """
    assert editor.views_per_forward >= num_views and not editor.views_depend
    steps = [-1]

    def replace(attn, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        hidden = args[0].unflatten(0, (-1, num_views))
        keys = list(keys_of_step(steps[0]))
        others = [view for view in range(num_views) if view not in keys]
        found = {view: match(view, keys, hidden[0, view], hidden[0, keys]) for view in others}
        result = torch.empty_like(hidden, dtype=torch.float64)
        for branch in range(len(hidden)):
            joint = hidden[branch, keys].flatten(0, 1)
            for key in keys:
                result[branch, key] = explicit_attention(attn, hidden[branch, key], joint)
            offered = result[branch, keys].flatten(0, 1)
            for view in others:
                own = explicit_attention(attn, hidden[branch, view], hidden[branch, view])
                taken = found[view].double() @ offered
                result[branch, view] = torch.where(found[view].any(dim=1, keepdim=True), taken, own)
        return result.flatten(0, 1).to(output)

    def count(module, args) -> None:
        steps[0] += 1

    editor.unet.register_forward_pre_hook(count)
    for name, module in editor.unet.named_modules():
        if name.endswith("attn1"):
            module.register_forward_hook(replace)
