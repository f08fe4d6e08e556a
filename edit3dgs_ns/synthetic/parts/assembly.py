"""A person's geometry in another form."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.synthetic.baking import BakedIdentity
from edit3dgs_ns.synthetic.form import Form
from edit3dgs_ns.synthetic.hair import HairStyle
from edit3dgs_ns.synthetic.noise import smoothstep
from edit3dgs_ns.synthetic.part import Part
from edit3dgs_ns.synthetic.parts.aging import age_shape, aged_hair, jowl_offset, receding
from edit3dgs_ns.synthetic.parts.beard import STYLES as BEARDS
from edit3dgs_ns.synthetic.parts.beard import grow_beard
from edit3dgs_ns.synthetic.parts.glasses import wear_glasses
from edit3dgs_ns.synthetic.parts.hat import wear_hat
from edit3dgs_ns.synthetic.parts.locks import long_hair, no_hair, tucked_hair
from edit3dgs_ns.synthetic.parts.shape import bare_scalp, ear_offset, nose_offset


def reformed(
    own: BakedIdentity, shape: Float[np.ndarray, " s"], style: HairStyle, form: Form, seed: int
) -> BakedIdentity:
    """The geometry of a person in another form.

    Args:
        own: the person's own geometry.
        shape: coefficients of the head's shape directions.
        style: the person's own cut.
        seed: of locks and beard.
    """
    head = own.head
    moved = form.nose * nose_offset(head, own.rest) + form.ears * ear_offset(head, own.rest)
    if form.age > 0:
        moved = moved + form.age * jowl_offset(head)
        gone = receding(head, form.age)
        moved = moved - gone[:, None] * own.static_offset
        shape = shape + form.age * age_shape(head)
    bald = form.hair == "bald"
    if bald:  # the lift is part of the hair's bulk
        moved = moved - own.static_offset
    offset = (own.static_offset + moved).astype(np.float32)
    shaped = head.model.shaped(torch.from_numpy(np.asarray(shape, np.float32)), torch.from_numpy(offset))
    new = smoothstep(0.0005, 0.002, np.linalg.norm(shaped.v_shaped.numpy() - own.rest, axis=1))
    if bald:
        new = np.maximum(new, bare_scalp(head))
    hair = no_hair() if bald else long_hair(own, seed) if form.hair == "long" else own.hair
    if form.ears > 0 and form.hair == "own":
        hair = tucked_hair(own)
    if form.age > 0 and form.hair == "own":
        new = np.maximum(new, gone)
        hair = aged_hair(hair, head, own.rest, form.age)
    bare = BakedIdentity(head, shaped, offset, hair)
    parts: list[Part] = []
    if form.hat:
        hat, hair = wear_hat(bare, 0.0 if bald else style.depth)
        parts.append(hat)
    if form.beard != "none":
        parts.append(grow_beard(bare, BEARDS[form.beard], seed))
    if form.glasses != "none":
        parts += wear_glasses(bare, form.glasses == "dark")
    return BakedIdentity(head, shaped, offset, hair, tuple(parts), new, form.hair == "long")
