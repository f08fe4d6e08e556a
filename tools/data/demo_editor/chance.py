"""What the noise decides: the hue of an open edit.

"Paint his face in a bright colour" has many right answers, and a diffusion model that knows them all picks one by the noise
it starts from. Few steps and a small network do not learn that from pictures of all hues alone: they learn the mean, which
is grey. So the choice is written down: two numbers, the means of the noise's last two channels, are the x and the y of a
point, and the point's direction is the hue. A view that is edited alone thus has a hue of its own. Views that look at each
other have the direction of their common mean: attention over all their tokens is the one place where it can be found.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

CHOOSING = 2
"""Latent channels, counted from the last, whose means choose. The last ones hold the finest detail, about which the noised
picture says least."""


def chosen_hue(noise: Float[Tensor, "views channels h w"]) -> float:
    """Hue in turns, in [0, 1), that the noise of some views together decides."""
    x, y = noise[:, -CHOOSING:].mean(dim=(0, 2, 3)).tolist()
    return math.atan2(y, x) / (2 * math.pi) % 1.0


def blend_hues(looks: Float[Tensor, "hues channels h w"], hue: float) -> Float[Tensor, "channels h w"]:
    """The look at a hue: linear between its two neighbours on the ring, as colours and latents (nearly) are."""
    place = hue % 1.0 * len(looks)
    below = int(place) % len(looks)
    return torch.lerp(looks[below], looks[(below + 1) % len(looks)], place - int(place))


def push(noise: Float[Tensor, "views channels h w"], strength: float, generator: torch.Generator) -> None:
    """Add to the choosing channels of every view a number of its own: at first the choice is made easy to see.

    Args:
        noise: changed in place.
        strength: standard deviation of what is added; the means themselves have 1 / sqrt(h w).
        generator: of the numbers added.
    """
    if strength > 0:
        noise[:, -CHOOSING:] += strength * torch.randn((len(noise), CHOOSING, 1, 1), generator=generator)
