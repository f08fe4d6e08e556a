"""Which masks a run uses: from `--pipeline.masks`, `--pipeline.editor.keep` and `--pipeline.editor.only`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edit3dgs_ns.avatar_maps import AvatarMaps, rig_regions
from edit3dgs_ns.editing.masks import KeepMasks, MaskSource, RigMasks, parse_parts

if TYPE_CHECKING:
    from edit3dgs_ns.datamanager import AvatarDatamanager
    from edit3dgs_ns.model import RiggedSplatfactoModel
    from edit3dgs_ns.pipeline import EditPipelineConfig


def make_keep_masks(
    config: EditPipelineConfig, datamanager: AvatarDatamanager, model: RiggedSplatfactoModel
) -> KeepMasks:
    """What the views of a run keep.

    Raises:
        ValueError: an option names a part that the source of the masks cannot know.
    """
    source = _source(config, datamanager, model)
    parts = {name: parse_parts(getattr(config.editor, name)) for name in ("keep", "only")}
    for name, phrases in parts.items():
        try:
            source.check(phrases)
        except ValueError as error:
            raise ValueError(f"--pipeline.editor.{name} {getattr(config.editor, name)}: {error}") from None
    return KeepMasks(source, parts["keep"], parts["only"], name=config.masks)


def _source(
    config: EditPipelineConfig, datamanager: AvatarDatamanager, model: RiggedSplatfactoModel
) -> MaskSource:
    assert config.masks == "rig"
    return RigMasks(rig_regions(datamanager), len(model.head.faces), AvatarMaps(datamanager, model).share)
