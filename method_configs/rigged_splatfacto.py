"""`ns-train rigged-splatfacto`: an animatable head avatar with the schedule of GaussianAvatars.

Qian et al., CVPR 2024, section 4 and supplement: 600,000 steps of one image each, hours on a GPU. `rigged-splatfacto-fast` is
the same avatar in minutes.
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

STEPS = 600_000
"""Length of the training."""
DENSIFY_EVERY = 2000
RESET_EVERY = 60_000
"""Steps between densifications, and between resets of the opacities."""


def gaussian_avatars_optimizers() -> dict[str, dict[str, Any]]:
    """Adam for every parameter group, with GaussianAvatars' rates: constant ones, but for the decay of the positions'.

    The rate of `means` is multiplied by the extent of the cameras (`scale_position_rate`).
    """

    def adam(rate: float, final: float | None = None) -> dict[str, Any]:
        schedule = None if final is None else ExponentialSchedulerConfig(lr_final=final, max_steps=STEPS)
        return {"optimizer": AdamOptimizerConfig(lr=rate, eps=1e-15), "scheduler": schedule}

    return {
        "means": adam(5e-3, 5e-5),
        "features_dc": adam(2.5e-3),
        "features_rest": adam(1.25e-4),
        "opacities": adam(5e-2),
        "scales": adam(1.7e-2),
        "quats": adam(1e-3),
        "flame_expr": adam(1e-3),
        "flame_translation": adam(1e-6),
        "flame_rotation": adam(1e-5),
        "flame_neck": adam(1e-5),
        "flame_jaw": adam(1e-5),
        "flame_eyes": adam(1e-5),
        # Not in GaussianAvatars, and off in this method.
        "expression_means": adam(1e-4),
        "expression_colors": adam(1e-4),
        "light": adam(1e-4),
    }


def gaussian_avatars_model() -> RiggedSplatfactoModelConfig:
    """GaussianAvatars' options of the model, without what this project adds to them."""
    return RiggedSplatfactoModelConfig(
        sh_degree=3,
        sh_degree_interval=1000,
        warmup_length=10_000,
        refine_every=DENSIFY_EVERY,
        stop_split_at=STEPS,
        reset_alpha_every=RESET_EVERY // DENSIFY_EVERY,
        densify_grad_thresh=2e-4,
        # 0.01 times the extent of cameras that stand about a metre away.
        densify_size_thresh=0.01,
        cull_alpha_thresh=0.005,
        max_gaussians=1_000_000,
        scale_position_rate=True,
        initial_opacity=0.1,
        center_tuning=False,
        relighting=False,
        expression_rank=0,
        initial_spacing=0.0,
        rasterize_mode="classic",
    )


rigged_splatfacto = MethodSpecification(
    config=AvatarTrainerConfig(
        _target=ResumableTrainer,
        method_name="rigged-splatfacto",
        max_num_iterations=STEPS,
        steps_per_save=10_000,
        steps_per_eval_batch=0,
        steps_per_eval_image=2000,
        steps_per_eval_all_images=0,
        mixed_precision=False,
        logging=LoggingConfig(steps_per_log=100, local_writer=LocalWriterConfig(enable=True, max_log_size=0)),
        pipeline=AvatarPipelineConfig(
            datamanager=AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig(), cameras_per_step=1),
            model=gaussian_avatars_model(),
        ),
        optimizers=gaussian_avatars_optimizers(),
    ),
    description="Animatable head avatar: Gaussians bound to a FLAME mesh, GaussianAvatars' 600,000 steps.",
)
