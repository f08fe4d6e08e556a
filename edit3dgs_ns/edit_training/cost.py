"""What the edits of a run will cost the diffusion model, and what they did cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edit3dgs_ns.console import duration
from edit3dgs_ns.edit_training.options import EditorConfig
from edit3dgs_ns.editing.editor import cost_of
from edit3dgs_ns.editing.schedule import EditSchedule


def planned_cost(editor: Any, options: EditorConfig, schedule: EditSchedule) -> str:
    """A sentence on what the rounds to come will cost; empty where the editor cannot say.

    Args:
        editor: of the run.
        options: how it is used.
        schedule: the rounds.
    """
    priced = cost_of(editor)
    if priced is None or priced.weight_bytes is None:
        return ""
    batches = [schedule.batch(number) for number in range(schedule.round, schedule.rounds)]
    views = sum(len(batch.views) for batch in batches)
    evaluations = sum(
        len(batch.views)
        * (
            priced.evaluations_per_view(
                batch.noise, options.steps, options.guidance_scale, options.image_guidance_scale
            )
            or 0
        )
        for batch in batches
    )
    where = "" if options.workers.strip() == "1" else " in every worker"
    return (
        f"{len(batches)} rounds edit {views} views: about {evaluations} evaluations of the network. Its weights take "
        f"{priced.weight_bytes / 1e9:.2g} GB{where}."
    )


def actual_cost(batches: Sequence[dict[str, Any]]) -> str:
    """A sentence on what the rounds of a run's history have cost; empty for none.

    Args:
        batches: the rounds' records, as in `edit_history.json`.
    """
    if not batches:
        return ""
    evaluations = sum(batch.get("unet_evaluations", 0) for batch in batches)
    memory = max(batch.get("peak_memory_gb", 0.0) for batch in batches)
    peak = f", {memory:.1f} GB of memory at most" if memory else ""
    return (
        f"{len(batches)} rounds edited {sum(len(batch['views']) for batch in batches)} views: {evaluations} evaluations of the "
        f"network, {duration(sum(batch.get('seconds', 0.0) for batch in batches))}{peak}."
    )
