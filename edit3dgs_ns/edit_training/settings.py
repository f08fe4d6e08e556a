"""The settings that the edits of a run depend on, as plain values: edits are stored under them, and only the same run is resumed.

Every option that changes an edit belongs here, also one that changes it by the avatar it starts from (losses, what is trained).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.errors import UserError

if TYPE_CHECKING:
    from edit3dgs_ns.edit_training.options import EditOptions
    from edit3dgs_ns.editing.masks.keep_auto import Masks
    from edit3dgs_ns.editing.schedule import EditSchedule
    from edit3dgs_ns.splats.rig import TrackedHead
    from edit3dgs_ns.training.datamanager import AvatarDatamanager

_OF_THE_RUN = (
    "edit_every", "train_on", "densify", "growth_budget", "edit_motion", "edit_light", "hold_outside", "hold_border", "anchors",
    "judge", "retries",
)  # fmt: skip
_ADDED_SINCE = {"rounds_at_once": 1, "edit_expression": "auto"}
"""Options of the run that are listed only where they differ from what older runs did, so that these go on and find their edits."""
_OF_THE_REQUESTS = (
    "guidance_scale", "image_guidance_scale", "steps", "shared_noise", "keep_strength", "keep_from", "keep_until",
)  # fmt: skip
"""What an editor does not have in its own `settings`, because each request may say something else."""


def run_settings(
    config: EditOptions,
    *,
    base_steps: int,
    loss: str,
    schedule: EditSchedule,
    editor: Mapping[str, Any],
    keep: Masks,
    datamanager: AvatarDatamanager,
) -> dict[str, Any]:
    """Everything that the edits of a run depend on, as JSON values.

    Args:
        config: of the run.
        base_steps: steps before its first edit.
        loss: what edits are fitted with, in words.
        schedule: of its rounds.
        editor: the editor's own settings.
        keep: what its views keep.
        datamanager: whose images are edited.
    """
    names = "\n".join(path.name for path in datamanager.train_dataset.image_filenames)
    settings = {
        "prompt": config.prompt,
        "base_steps": base_steps,
        **{name: getattr(config, name) for name in _OF_THE_RUN},
        **{name: getattr(config.editor, name) for name in _OF_THE_REQUESTS},
        **schedule.settings(),
        **editor,
        "loss": loss,
        "keep": keep.settings(),
        "images": hashlib.sha256(names.encode()).hexdigest()[:12],
    }
    settings |= {
        name: getattr(config, name) for name, old in _ADDED_SINCE.items() if getattr(config, name) != old
    }
    return dict(json.loads(json.dumps(settings)))


def check_same_run(saved: Any, own: Mapping[str, Any]) -> None:
    """Raise a ValueError unless a checkpoint is of a run with these settings.

    Args:
        saved: what the checkpoint says of its edit; anything at all.
        own: of `run_settings`.
    """
    settings = saved.get("settings") if isinstance(saved, Mapping) else None
    if not isinstance(settings, Mapping):
        raise UserError(
            "--load-dir: this is no checkpoint of `ns-train edit3dgs`, so there is no edit to go on with. To edit a "
            "trained avatar, give it as --pipeline.avatar instead of --load-dir."
        )
    before = {**_ADDED_SINCE, "detail": 0.0}
    settings = {**before, **settings}
    for name, value in {**before, **own}.items():
        if settings.get(name) != value:
            raise UserError(
                f"--load-dir: the run to resume has {name} {settings.get(name)!r}, this one {value!r}. Resume with "
                "the same command, or edit that run's avatar anew: --pipeline.avatar instead of --load-dir."
            )


def make_schedule(config: EditOptions, datamanager: AvatarDatamanager, head: TrackedHead) -> EditSchedule:
    """The schedule that the options ask for.

    Args:
        config: of the run.
        datamanager: whose images are edited.
        head: the head that was tracked.

    The order follows from the motion as it was tracked, whatever an avatar has made of it since: the same capture has the
    same order.
    """
    from edit3dgs_ns.editing.schedule import EditSchedule

    expressions = None
    if config.timestep_order == "farthest-first":
        from edit3dgs_ns.flame.expression_space import expression_space

        shaped = head.flame.shaped(head.shape, head.static_offset)
        tracked = datamanager.train_dataset.metadata["flame_motion"]
        expressions = expression_space(shaped, tracked.to(head.shape.device)).cpu().numpy()
    return EditSchedule(
        datamanager.indices_by_timestep(),
        rounds=config.rounds,
        views_per_edit=config.views_per_edit,
        timesteps_per_edit=config.timesteps_per_edit,
        timesteps=config.timesteps,
        order=config.timestep_order,
        expressions=expressions,
        noise_first=config.noise_first,
        noise_last=config.noise_last,
        seed=config.seed,
        new_noise=config.new_noise,
    )
