"""`ns-train edit3dgs --prompt "..."`: edit a head avatar with a sentence."""

from __future__ import annotations

from nerfstudio.configs.base_config import LocalWriterConfig, LoggingConfig
from nerfstudio.plugins.types import MethodSpecification

from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.edit_training.optimizers import edit_optimizers
from edit3dgs_ns.edit_training.pipeline import EditPipelineConfig
from edit3dgs_ns.training.datamanager import AvatarDatamanagerConfig
from edit3dgs_ns.training.model import RiggedSplatfactoModelConfig
from edit3dgs_ns.training.trainer import ResumableTrainer
from edit3dgs_ns.training.trainer_config import AvatarTrainerConfig

UNTIL_DONE = 1_000_000
"""The pipeline's rounds say how long a run takes; `--max-num-iterations` can only make it shorter."""


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
