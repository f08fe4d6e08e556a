"""`ns-train rigged-splatfacto-fast`: an animatable head avatar from a multi-view capture, in minutes.

The schedule is for a newcomer's machine: a few thousand steps on two CPU cores. `rigged-splatfacto` is the same avatar with
GaussianAvatars' own 600,000 steps. Lengths between need flags alone (`--max-num-iterations`,
`--optimizers.means.scheduler.max-steps` and so on).
"""

from __future__ import annotations

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.training.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig
from edit3dgs_ns.training.optimizers import avatar_optimizers
from edit3dgs_ns.training.pipeline import AvatarPipelineConfig
from edit3dgs_ns.training.trainer import ResumableTrainer
from edit3dgs_ns.training.trainer_config import AvatarTrainerConfig

STEPS = 3000
"""Length of the default training."""


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
            # A third of the training at half the size: a sixth less time, and no less quality.
            model=RiggedSplatfactoModelConfig(num_downscales=1, resolution_schedule=STEPS // 3),
        ),
        optimizers=avatar_optimizers(STEPS),
    ),
    description="Animatable head avatar in minutes: Gaussians bound to a FLAME mesh.",
)
