"""Matches that a test can foresee."""

from __future__ import annotations

import torch

from edit3dgs_ns.editing.agreement.correspondence import TokenMatches


class FakeCorrespondence:
    """Matches each token with the same token of the first two key views, or with random ones; keeps what it was
    asked."""

    def __init__(self, needs_features=False, random=False):
        self.needs_features, self.random, self.asked = needs_features, random, []

    def match(self, views, keys, grid, queries, key_queries):
        self.asked.append((tuple(views), tuple(keys), grid, queries, key_queries))
        tokens = grid[0] * grid[1]
        place = torch.tensor([[0, min(1, len(keys) - 1)]]).repeat(len(views), 1)
        if not self.random:
            index = torch.arange(tokens).repeat(len(views), 2, 1)
            weight = torch.full((len(views), 2, tokens), 0.5)
            return TokenMatches(index, weight, place)
        # The seed depends on the view alone, so that the split into forwards does not matter.
        index = torch.stack([random_index(view, tokens) for view in views])
        weight = torch.tensor([0.7, 0.3])[:, None] * (index >= 0)
        return TokenMatches(index, weight / weight.sum(1, keepdim=True).clamp(min=1e-9), place)


def random_index(view, tokens):
    """What the tokens of a view match in two key views; -1 for nothing, for some in both."""
    index = torch.randint(-tokens // 2, tokens, (2, tokens), generator=torch.Generator().manual_seed(view))
    return index.clamp(min=-1)
