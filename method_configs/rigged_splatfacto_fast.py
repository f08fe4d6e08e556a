"""`ns-train rigged-splatfacto-fast`: an animatable head avatar from a multi-view capture, in minutes.

The schedule is for a newcomer's machine: a few thousand steps on two CPU cores. `rigged-splatfacto` is the same avatar with
GaussianAvatars' own 600,000 steps. Lengths between need flags alone (`--max-num-iterations`,
`--optimizers.means.scheduler.max-steps` and so on).
"""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.avatar_options import RiggedSplatfactoModelConfig
from edit3dgs_ns.avatar_pipeline import AvatarPipelineConfig
from edit3dgs_ns.checkpoints import ResumableTrainer
from edit3dgs_ns.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.schedulers import ExponentialSchedulerConfig
from edit3dgs_ns.trainer import AvatarTrainerConfig

STEPS = 3000
"""Length of the default training."""


def avatar_optimizers(steps: int) -> dict[str, dict[str, Any]]:
    """Adam for every parameter group of an avatar that is trained for `steps`.

    GaussianAvatars' rates (section 3.4), for a training some hundred times as short: where its positions decay from 5e-3 to
    5e-5 over 600,000 steps, ours begin higher and all rates decay, because a constant rate leaves noise that a short training
    cannot average out.
    """

    def adam(rate: float, final: float | None = None) -> dict[str, Any]:
        schedule = None if final is None else ExponentialSchedulerConfig(lr_final=final, max_steps=steps)
        return {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": schedule}

    return {
        "means": adam(2e-2, 1e-3),
        "features_dc": adam(1e-2, 1e-3),
        "features_rest": adam(1e-3, 1e-4),
        "opacities": adam(5e-2, 1e-2),
        "scales": adam(2e-2, 2e-3),
        "quats": adam(5e-3, 5e-4),
        "expression_means": adam(2e-3, 2e-4),
        "expression_colors": adam(2e-3, 2e-4),
        "light": adam(1e-2, 1e-3),
        # High at first, to find the way back from a tracker's errors; low in the end, not to add errors of their own.
        "flame_expr": adam(2e-3, 1e-4),
        "flame_translation": adam(2e-5, 1e-6),
        "flame_rotation": adam(2e-4, 1e-5),
        "flame_neck": adam(2e-4, 1e-5),
        "flame_jaw": adam(2e-4, 1e-5),
        "flame_eyes": adam(2e-4, 1e-5),
    }


rigged_splatfacto_fast = MethodSpecification(
    config=AvatarTrainerConfig(
        _target=ResumableTrainer,
        method_name="rigged-splatfacto-fast",
        max_num_iterations=STEPS,
        steps_per_save=1000,
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        logging=LoggingConfig(steps_per_log=50, local_writer=LocalWriterConfig(enable=True, max_log_size=0)),
        pipeline=AvatarPipelineConfig(
            datamanager=AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig()),
            model=RiggedSplatfactoModelConfig(),
        ),
        optimizers=avatar_optimizers(STEPS),
    ),
    description="Animatable head avatar in minutes: Gaussians bound to a FLAME mesh.",
)
