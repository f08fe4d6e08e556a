"""`ns-train rigged-splatfacto`: an animatable head avatar from a multi-view capture.

The schedule is for a newcomer's machine: a few thousand steps, minutes on two CPU cores. Another length needs flags
alone (`--max-num-iterations`, `--optimizers.means.scheduler.max-steps` and so on); GaussianAvatars' own 600,000 steps are
reached that way too.
"""

from __future__ import annotations

from typing import Any

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.engine.optimizers import AdamOptimizerConfig
from nerfstudio.pipelines.base_pipeline import VanillaPipelineConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.checkpoints import ResumableTrainer
from edit3dgs_ns.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.model import RiggedSplatfactoModelConfig
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
        "flame_expr": adam(1e-3, 1e-4),
        "flame_translation": adam(1e-5, 1e-6),
        "flame_pose": adam(1e-4, 1e-5),
    }


rigged_splatfacto = MethodSpecification(
    config=AvatarTrainerConfig(
        _target=ResumableTrainer,
        method_name="rigged-splatfacto",
        max_num_iterations=STEPS,
        steps_per_save=1000,
        steps_per_eval_batch=0,
        steps_per_eval_image=500,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        logging=LoggingConfig(steps_per_log=50, local_writer=LocalWriterConfig(enable=True, max_log_size=0)),
        pipeline=VanillaPipelineConfig(
            datamanager=AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig()),
            model=RiggedSplatfactoModelConfig(),
        ),
        optimizers=avatar_optimizers(STEPS),
    ),
    description="Animatable head avatar: Gaussians bound to a FLAME mesh (GaussianAvatars).",
)
