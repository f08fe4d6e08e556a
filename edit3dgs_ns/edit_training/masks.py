"""Which masks a run uses: from `--pipeline.masks`, `--pipeline.editor.keep` and `--pipeline.editor.only`."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edit3dgs_ns.editing.masks.keep_auto import AUTO, AutoKeep, speaks_of_them
from edit3dgs_ns.editing.masks.keep_auto import PARTS as KEPT_PARTS
from edit3dgs_ns.editing.masks.regions import KeepMasks, MaskSource, RigMasks, parse_parts
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.training.surface_maps import AvatarMaps, rig_regions

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.options import EditOptions
    from edit3dgs_ns.training.datamanager import AvatarDatamanager
    from edit3dgs_ns.training.model import RiggedSplatfactoModel

logger = logging.getLogger(__name__)


def make_keep_masks(
    config: EditOptions,
    datamanager: AvatarDatamanager,
    model: RiggedSplatfactoModel,
    maps: AvatarMaps | None = None,
) -> KeepMasks | AutoKeep:
    """What the views of a run keep.

    Args:
        config: of the run.
        datamanager: gives the views.
        model: the avatar.
        maps: draws the rig's masks; one of their own if not given.

    Raises:
        ValueError: an option names a part that the source of the masks cannot know, or the source cannot work.
        FileNotFoundError: weights of a detector are not there.
    """
    auto = config.editor.keep.strip().lower() == AUTO
    parts = {
        "keep": () if auto else parse_parts(config.editor.keep),
        "only": parse_parts(config.editor.only),
    }
    source = _source(config, any(parts.values()), datamanager, model, maps)
    for name, phrases in parts.items():
        try:
            source.check(phrases)
        except ValueError as error:
            raise UserError(f"--pipeline.editor.{name} {getattr(config.editor, name)}: {error}") from None
    always = KeepMasks(source, parts["keep"], parts["only"], config.masks, config.editor.keep_margin)
    if not auto or speaks_of_them(config.prompt):
        return always
    return _auto_keep(config, always, parts["only"], rig_masks(datamanager, model, maps))


def _auto_keep(
    config: EditOptions, always: KeepMasks, only: tuple[str, ...], rig: RigMasks
) -> KeepMasks | AutoKeep:
    """What decides by itself about eyes and mouth, as the rig knows them; what is kept in any case if the rig does not."""
    try:
        rig.check(KEPT_PARTS)
    except ValueError as error:
        logger.info("--pipeline.editor.keep auto keeps nothing: %s", error)
        return always
    parts = KeepMasks(rig, KEPT_PARTS, margin=config.editor.keep_margin)
    return AutoKeep(always, _Both(always, parts), parts)


class _Both:
    """Masks of what either of two keeps."""

    def __init__(self, first: KeepMasks, second: KeepMasks):
        self._masks = (first, second)

    def settings(self) -> dict[str, Any]:
        """As JSON values."""
        return {"kept": [masks.settings() for masks in self._masks]}

    def masks(self, images: np.ndarray, view_ids: Sequence[int]) -> np.ndarray | None:
        """See `KeepMasks.masks`."""
        found = [mask for masks in self._masks if (mask := masks.masks(images, view_ids)) is not None]
        return np.maximum.reduce(found) if found else None


def rig_masks(
    datamanager: AvatarDatamanager, model: RiggedSplatfactoModel, maps: AvatarMaps | None = None
) -> RigMasks:
    """The masks that the avatar itself gives."""
    share = (maps or AvatarMaps(datamanager, model)).share
    return RigMasks(rig_regions(datamanager), len(model.head.faces), share)


def _source(
    config: EditOptions,
    wanted: bool,
    datamanager: AvatarDatamanager,
    model: RiggedSplatfactoModel,
    maps: AvatarMaps | None,
) -> MaskSource:
    if config.masks == "rig":
        return rig_masks(datamanager, model, maps)
    if not wanted:
        logger.warning(
            "--pipeline.masks %s is not used: no part is named by --pipeline.editor.keep or --pipeline.editor.only.",
            config.masks,
        )
        return rig_masks(datamanager, model, maps)  # never asked for a mask
    from edit3dgs_ns.editing.masks.grounded_sam import load_grounded_sam

    return load_grounded_sam(config.grounded_sam, model.device)
