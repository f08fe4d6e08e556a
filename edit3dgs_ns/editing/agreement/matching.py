"""Chooses how corresponding tokens are found: along epipolar lines, or by the rig."""

from __future__ import annotations

import torch

from edit3dgs_ns.editing.agreement.correspondence import Correspondence, CorrespondenceKind
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.framing import Frame
from edit3dgs_ns.errors import UserError


def make_correspondence(
    kind: CorrespondenceKind, request: EditRequest, frame: Frame, device: torch.device
) -> Correspondence | None:
    """The correspondence of a request; None for `none`.

    Args:
        kind: which.
        request: gives cameras, timesteps and canonical maps.
        frame: how the request's images lie in the canvas that the tokens divide.
        device: where the matches are wanted.

    Raises:
        ValueError: the request lacks what this kind needs, or there is no such kind.
    """
    if kind == "none":
        return None
    if kind == "epipolar":
        from edit3dgs_ns.editing.agreement.epipolar import EpipolarCorrespondence

        return EpipolarCorrespondence(request, frame, device)
    if kind == "rig":
        from edit3dgs_ns.editing.agreement.rig_matching import RigCorrespondence

        return RigCorrespondence(request, frame, device)
    raise UserError(f"correspondence {kind!r}: expected epipolar, rig or none.")
