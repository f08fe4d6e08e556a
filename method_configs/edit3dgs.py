"""`ns-train edit3dgs --prompt "..."`: edit a head avatar with a sentence."""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.avatar_options import RiggedSplatfactoModelConfig
from edit3dgs_ns.checkpoints import ResumableTrainer
from edit3dgs_ns.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.pipeline import EditPipelineConfig
from edit3dgs_ns.trainer import AvatarTrainerConfig

UNTIL_DONE = 1_000_000
"""The pipeline's rounds say how long a run takes; `--max-num-iterations` can only make it shorter."""


def edit_optimizers() -> dict[str, dict[str, Any]]:
    """Adam for every parameter group while edits are fitted.

    The avatar is trained already: positions and sizes move little, colours freely. The learning rates stay
        until the final steps, where the pipeline lowers them; while an avatar is trained first, it sets those
        of `rigged-splatfacto-fast`.
    """

    def adam(rate: float) -> dict[str, Any]:
        return {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": None}

    return {
        "means": adam(2e-3),
        "features_dc": adam(1e-2),
        "features_rest": adam(5e-4),
        "opacities": adam(1e-2),
        "scales": adam(4e-3),
        "quats": adam(1e-3),
        "expression_means": adam(2e-4),
        "expression_colors": adam(2e-4),
        "light": adam(1e-3),
        "flame_expr": adam(1e-4),
        "flame_translation": adam(1e-6),
        "flame_rotation": adam(1e-5),
        "flame_neck": adam(1e-5),
        "flame_jaw": adam(1e-5),
        "flame_eyes": adam(1e-5),
    }


edit3dgs = MethodSpecification(
    config=AvatarTrainerConfig(
        _target=ResumableTrainer,
        method_name="edit3dgs",
        max_num_iterations=UNTIL_DONE,
        steps_per_save=500,
        # The held-out images are of the head before the edit: nothing to measure an edit by.
        steps_per_eval_batch=0,
        steps_per_eval_image=0,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        # Plain lines: Nerfstudio's table moves the cursor up and would write over the progress bars of the
        # edits.
        logging=LoggingConfig(steps_per_log=50, local_writer=LocalWriterConfig(enable=True, max_log_size=0)),
        pipeline=EditPipelineConfig(
            datamanager=AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig()),
            model=RiggedSplatfactoModelConfig(),
        ),
        optimizers=edit_optimizers(),
    ),
    description="Edit a head avatar with a sentence (InstructPix2Pix on a rigged-splatfacto avatar).",
)
