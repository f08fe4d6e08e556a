"""Classifier-free guidance with two scales: which predictions are made, and how they are weighed.

Source: Brooks, Holynski and Efros, "InstructPix2Pix: Learning to Follow Image Editing Instructions", CVPR 2023,
    section 3.2.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Branch:
    """One prediction of the UNet for a view, and its weight in the guided one."""

    weight: float
    text: bool
    """It is given the prompt; else the empty prompt."""
    image: bool
    """It is given the original image; else zeros."""


def guidance_weights(guidance_scale: float, image_guidance_scale: float) -> tuple[float, float, float]:
    """Weights of the branches (text and image, image alone, nothing) in the guided prediction.

    InstructPix2Pix, eq. 3: e_u + s_I (e_I - e_u) + s_T (e_TI - e_I), collected by branch. The weights add up
    to 1.
    """
    return guidance_scale, image_guidance_scale - guidance_scale, 1.0 - image_guidance_scale


def guidance_branches(guidance_scale: float, image_guidance_scale: float) -> tuple[Branch, ...]:
    """Guidance branches with a weight other than 0.

    The first is the one whose features say where views show the same: the image alone (DGE), else the closest
    to it.
    """
    text, image, nothing = guidance_weights(guidance_scale, image_guidance_scale)
    branches = (Branch(image, False, True), Branch(text, True, True), Branch(nothing, False, False))
    return tuple(branch for branch in branches if branch.weight != 0)
