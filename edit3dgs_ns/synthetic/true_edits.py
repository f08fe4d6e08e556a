"""Every edit whose true result can be ray traced, of colours, form or expression, through one door.

person, frame = edited_person(identity, "knitted_hat"), edited_frame(frame, "smile", identity.head)
image = Scene(person, frame).trace(camera.c2w, camera.K, 256, 256).shade(person.appearance)
"""

from __future__ import annotations

from dataclasses import replace

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.synthetic.canonical import CanonicalHead
from edit3dgs_ns.synthetic.edits import EDITS, OPEN_EDITS, Edit, edited
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS, ExpressionEdit
from edit3dgs_ns.synthetic.form_edits import FORM_EDITS, FormEdit
from edit3dgs_ns.synthetic.identity import Identity
from edit3dgs_ns.synthetic.named_colors import NAMED_COLORS
from edit3dgs_ns.synthetic.posing import Frame

TRUE_EDITS: dict[str, Edit | FormEdit | ExpressionEdit] = {
    **EDITS,
    **NAMED_COLORS,
    **FORM_EDITS,
    **EXPRESSION_EDITS,
}
"""Every edit that has one true result, by its key."""


def edited_person(identity: Identity, edit: str | None, hue: float | None = None) -> Identity:
    """The person after an edit; an edit of expression changes frames alone (`edited_frame`).

    Args:
        edit: a key of TRUE_EDITS or OPEN_EDITS, or None for no edit.
        hue: in turns, for open edits.

    Raises:
        ValueError: there is no such edit, or an open edit has no hue.
    """
    if edit is None or edit in EXPRESSION_EDITS:
        return identity
    if edit in FORM_EDITS:
        return FORM_EDITS[edit].apply(identity)
    if edit in NAMED_COLORS:
        return replace(identity, appearance=NAMED_COLORS[edit].apply(identity.appearance))
    if edit not in EDITS and edit not in OPEN_EDITS:
        known = ", ".join([*TRUE_EDITS, *OPEN_EDITS])
        raise UserError(f"no true images of the edit {edit!r}; there are some of {known}.")
    return replace(identity, appearance=edited(identity.appearance, edit, hue))


def edited_frame(frame: Frame, edit: str | None, head: CanonicalHead) -> Frame:
    """The frame after an edit: another one for edits of expression, the same for all others."""
    return EXPRESSION_EDITS[edit].apply(frame, head) if edit in EXPRESSION_EDITS else frame
