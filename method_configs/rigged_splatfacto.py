"""`ns-train rigged-splatfacto`: an animatable head avatar with the schedule of GaussianAvatars.

Qian et al., CVPR 2024, section 4 and supplement: 600,000 steps of one image each, hours on a GPU. `rigged-splatfacto-fast` is
the same avatar in minutes.
"""

from __future__ import annotations

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.training.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig
from edit3dgs_ns.training.optimizers import gaussian_avatars_optimizers
from edit3dgs_ns.training.pipeline import AvatarPipelineConfig
from edit3dgs_ns.training.trainer import ResumableTrainer
from edit3dgs_ns.training.trainer_config import AvatarTrainerConfig

STEPS = 600_000
"""Length of the training."""
DENSIFY_EVERY = 2000
RESET_EVERY = 60_000
"""Steps between densifications, and between resets of the opacities."""


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
        optimizers=gaussian_avatars_optimizers(STEPS),
    ),
    description="Animatable head avatar: Gaussians bound to a FLAME mesh, GaussianAvatars' 600,000 steps.",
)
