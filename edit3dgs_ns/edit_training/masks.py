"""Which masks a run uses: from `--pipeline.masks`, `--pipeline.editor.keep` and `--pipeline.editor.only`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

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
) -> KeepMasks:
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
    parts = {name: parse_parts(getattr(config.editor, name)) for name in ("keep", "only")}
    source = _source(config, any(parts.values()), datamanager, model, maps)
    for name, phrases in parts.items():
        try:
            source.check(phrases)
        except ValueError as error:
            raise UserError(f"--pipeline.editor.{name} {getattr(config.editor, name)}: {error}") from None
    return KeepMasks(source, parts["keep"], parts["only"], name=config.masks)


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
