"""What can be known to be wrong with the options of an edit before anything is read, and the editor that they name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edit3dgs_ns.edit_training.options import EditOptions, EditorConfig
from edit3dgs_ns.editing.editor import check_prompt
from edit3dgs_ns.errors import UserError

_MOST = 100_000
"""Rounds, and views of one; nobody means more."""
_MOST_GROWTH = 10
"""Times the avatar's Gaussians that may be added."""
_LARGEST_SEED = 2**32 - 1
"""Every random generator takes it, and rounds and views count on from it."""


def check_options(config: EditOptions, world_size: int = 1) -> None:
    """Raise a ValueError or FileNotFoundError for what can be known to be wrong before anything is read."""
    from edit3dgs_ns.training.trainer import find_checkpoint

    if not config.prompt:
        raise UserError('edit3dgs needs an instruction: ns-train edit3dgs --prompt "Make him look older" ...')
    check_prompt(config.prompt)
    if world_size > 1:
        raise UserError(f"--machine.num-devices {world_size}: edit3dgs runs on one device.")
    for name in ("rounds", "rounds_at_once", "edit_every", "views_per_edit", "timesteps_per_edit"):
        if getattr(config, name) < 1:
            raise UserError(
                f"--pipeline.{name.replace('_', '-')} {getattr(config, name)}: expected at least 1."
            )
    if min(config.final_steps, config.base_steps, config.anchors, config.retries) < 0:
        raise UserError(
            "--pipeline.final-steps, --pipeline.base-steps, --pipeline.anchors and --pipeline.retries cannot be negative."
        )
    if max(config.rounds, config.views_per_edit, config.timesteps_per_edit) > _MOST:
        raise UserError(
            f"--pipeline.rounds, --pipeline.views-per-edit and --pipeline.timesteps-per-edit: expected at most {_MOST}."
        )
    if not 0 <= config.seed <= _LARGEST_SEED:
        raise UserError(f"--pipeline.seed {config.seed}: expected a number from 0 to {_LARGEST_SEED}.")
    if config.timesteps < 0:
        raise UserError(f"--pipeline.timesteps {config.timesteps}: expected at least 0.")
    if not 0 <= config.stop_when_converged < 1:
        raise UserError(
            f"--pipeline.stop-when-converged {config.stop_when_converged}: expected a change of colour from 0 (off) to 1, "
            "like 0.02."
        )
    check_fit(config)
    if not 0 < config.noise_last <= config.noise_first <= 1:
        raise UserError(
            f"--pipeline.noise-first {config.noise_first} --pipeline.noise-last {config.noise_last}: expected "
            "0 < last <= first <= 1."
        )
    check_editor(config.editor)
    if config.avatar is not None:
        find_checkpoint(config.avatar, "--pipeline.avatar", "a run of `ns-train rigged-splatfacto`")
    elif config.base_steps == 0:
        raise UserError(
            "--pipeline.base-steps 0 without --pipeline.avatar: there would be no avatar to edit."
        )


def check_fit(config: EditOptions) -> None:
    """Raise a ValueError or FileNotFoundError for wrong options of how edits are fitted."""
    from edit3dgs_ns.edit_training.loss import check_edit_loss
    from edit3dgs_ns.editing.masks.regions import parse_parts

    check_edit_loss(config.edit_loss, config.edit_loss_weight)
    if not 0 <= config.growth_budget <= _MOST_GROWTH:
        raise UserError(
            f"--pipeline.growth-budget {config.growth_budget}: expected a share of the avatar's Gaussians from 0 (add none) to "
            f"{_MOST_GROWTH}."
        )
    if not config.hold_border >= 0:
        raise UserError(f"--pipeline.hold-border {config.hold_border}: expected metres, 0 or more.")
    if config.hold_outside and not parse_parts(config.editor.only):
        raise UserError(
            "--pipeline.hold-outside needs a part to be outside of: --pipeline.editor.only hair, for example."
        )
    if config.hold_outside and config.densify:
        raise UserError(
            "--pipeline.hold-outside with --pipeline.densify: Gaussians that are held can neither split nor be pruned. Use "
            "one of the two."
        )


def check_editor(config: EditorConfig) -> None:
    """Raise a ValueError or FileNotFoundError for a wrong `--pipeline.editor` option."""
    from edit3dgs_ns.editing.diffusion.model_folder import check_use
    from edit3dgs_ns.editing.editors import check_editor_name
    from edit3dgs_ns.editing.own.names import own_editor
    from edit3dgs_ns.editing.worker_names import parse_workers

    check_editor_name(config.model, config.reference, config.ip_adapter)
    parse_workers(config.workers)
    for name, least, most in (
        ("guidance_scale", 0, 1000),
        ("image_guidance_scale", 0, 1000),
        ("steps", 1, 1000),
        ("resolution", 32, 8192),
    ):
        value = getattr(config, name)
        if value is not None and not least <= value <= most:
            option = f"--pipeline.editor.{name.replace('_', '-')}"
            raise UserError(f"{option} {value:g}: expected a number from {least} to {most}.")
    if own_editor(config.model) is None:
        check_use(config.model, config)
    if not 0 <= config.keep_margin <= 0.2:
        raise UserError(
            f"--pipeline.editor.keep-margin {config.keep_margin}: expected a share of the images' longer side, 0 to 0.2."
        )
    if not 0 <= config.detail <= 1:
        raise UserError(f"--pipeline.editor.detail {config.detail:g}: expected a number from 0 (off) to 1.")
    if not config.timeout > 0:
        raise UserError(f"--pipeline.editor.timeout {config.timeout}: expected seconds, more than 0.")
    if not config.in_range():
        raise UserError(
            f"--pipeline.editor.keep-strength {config.keep_strength} --pipeline.editor.keep-from {config.keep_from} "
            f"--pipeline.editor.keep-until {config.keep_until}: expected numbers from 0 to 1, and from <= until."
        )
    until = config.share_prediction_until
    if until is not None and not 0 <= until <= 1:
        raise UserError(
            f"--pipeline.editor.share-prediction-until {until:g}: expected a noise level from 0 to 1 (1 "
            "for never)."
        )
    for name, least in (
        ("views_per_forward", 1),
        ("views_per_key", 1),
        ("self_attention_below", 0),
    ):
        if getattr(config, name) < least:
            raise UserError(
                f"--pipeline.editor.{name.replace('_', '-')} {getattr(config, name)}: expected at least {least}."
            )


def load_editor_of(options: EditorConfig, device: Any, tell: Callable[[str], None] | None = None) -> Any:
    """The diffusion model that the options of a run name.

    Args:
        options: of the run.
        device: of the avatar.
        tell: told what it waits for, where that takes long; the log if not given.
    """
    from functools import partial

    from edit3dgs_ns.editing.agreement.sharing import SharingOptions
    from edit3dgs_ns.editing.diffusion.loading import download_index
    from edit3dgs_ns.editing.diffusion.model_folder import check_use
    from edit3dgs_ns.editing.editors import load_named_editor
    from edit3dgs_ns.editing.own.names import own_editor
    from edit3dgs_ns.editing.worker_names import parse_workers

    workers = parse_workers(options.workers)
    if workers is None and own_editor(options.model) is None:
        # Of a hub id this may be the first that is known of it; weights, often tens of gigabytes, come after.
        download_index(options.model)
        check_use(options.model, options)
    load = partial(
        load_named_editor,
        options.model,
        timeout=options.timeout,
        device=str(device) if options.device == "auto" else options.device,
        dtype=options.dtype,
        scheduler=options.scheduler,
        views_per_forward=options.views_per_forward,
        resolution=options.resolution,
        sharing=SharingOptions(
            options.correspondence,
            options.views_per_key,
            options.self_attention_below,
            options.share_prediction_until,
        ),
        attention_slicing=options.attention_slicing,
        offload=options.offload,
        references=options.reference,
        ip_adapter=options.ip_adapter,
        detail=options.detail,
    )
    if workers is None:
        return load()
    kind = str(load.keywords["device"]).partition(":")[0]
    from edit3dgs_ns.editing.workers import RayEditor

    # An actor sees the GPU that it was given as the first one.
    load.keywords["device"] = kind
    return RayEditor(workers, load, device=kind, views_per_task=options.views_per_forward, tell=tell)
