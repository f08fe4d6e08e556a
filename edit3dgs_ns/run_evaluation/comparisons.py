"""Opens what an evaluation compares: the avatars before and after each edit, their settings, captions and true edits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.run_evaluation.options import EvaluationOptions
from edit3dgs_ns.run_evaluation.runs import EditedRun, OpenRuns

if TYPE_CHECKING:
    from edit3dgs_ns.evaluation.clip import Clip
    from edit3dgs_ns.evaluation.identity import IdentityEmbedding
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.rendering.views import Setting
    from edit3dgs_ns.run_evaluation.expression import ExpressionFits
    from edit3dgs_ns.run_evaluation.measure import Captions
    from edit3dgs_ns.run_evaluation.truth import TrueEdit
    from edit3dgs_ns.runs.trained_run import TrainedRun


@dataclass
class Comparison:
    """An avatar before and after an edit, and what their comparison needs."""

    info: EditedRun
    base: TrainedRun
    edited: TrainedRun
    captions: Captions
    settings: list[Setting]
    truth: TrueEdit | None
    fits: ExpressionFits | None


def unknown_words(captions: list[tuple[str, str]], clip: Clip) -> list[str]:
    """A note for each caption with words that a small CLIP was never shown."""
    notes: list[str] = []
    for caption in (text for pair in captions for text in pair):
        if unknown := clip.unknown_words(caption):
            words = ", ".join(f"“{word}”" for word in unknown)
            _note(
                notes, f"The CLIP {clip.name} was never shown {words}: figures with “{caption}” mean little."
            )
    return notes


def open_networks(options: EvaluationOptions) -> tuple[Clip, IdentityEmbedding | None]:
    import torch

    from edit3dgs_ns.evaluation.clip import Clip
    from edit3dgs_ns.evaluation.identity import load_identity_embedding

    clip = Clip(options.clip, device="cuda" if torch.cuda.is_available() else "cpu")
    return clip, load_identity_embedding(options.identity, clip)


def open_comparisons(
    options: EvaluationOptions,
    infos: list[EditedRun],
    captions: list[tuple[str, str]],
    clip: Clip,
    show: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> tuple[list[Comparison], list[str]]:
    """The comparisons, and what the user should know of them.

    Args:
        options: what is compared.
        infos: the edited runs.
        captions: before and after, of each run.
        clip: embeds the captions.
        show: is told how far a video that drives is tracked (what is done, frames done, frames in all).
    """
    from edit3dgs_ns.rendering.views import shared_frames
    from edit3dgs_ns.run_evaluation.expression import ExpressionFits
    from edit3dgs_ns.run_evaluation.truth import find_true_edit

    opened = OpenRuns()
    pairs = [(opened.base(info), opened.edited(info)) for info in infos]
    for info, (base, edited) in zip(infos, pairs, strict=True):
        _check_same_head(info, base, edited)
    names = [name for info in infos for name in (f"{info.name} before", f"{info.name} after")]
    allowed = shared_frames([run for pair in pairs for run in pair], names)
    notes: list[str] = []
    fits: dict[int, ExpressionFits] = {}
    comparisons = []
    for info, (base, edited), pair in zip(infos, pairs, captions, strict=True):
        settings = _settings(options, edited, allowed, notes, show)
        if options.expression_frames and id(base) not in fits:
            fits[id(base)] = ExpressionFits(base, options.expression_frames)
        truth = find_true_edit(edited, info.prompt, options.true_edit)
        comparisons.append(
            Comparison(info, base, edited, _embedded(pair, clip), settings, truth, fits.get(id(base)))
        )
    return comparisons, notes


def _check_same_head(info: EditedRun, base: TrainedRun, edited: TrainedRun) -> None:
    before, after = base.pipeline.model.head, edited.pipeline.model.head
    if len(before.static_offset) != len(after.static_offset) or before.num_timesteps != after.num_timesteps:
        raise UserError(
            f"{info.base} is not what {info.config} came from: {len(before.static_offset)} vertices and "
            f"{before.num_timesteps} timesteps before, {len(after.static_offset)} and {after.num_timesteps} after. "
            "Give the avatar before the edit: --base RUN"
        )


def _embedded(captions: tuple[str, str], clip: Clip) -> Captions:
    from edit3dgs_ns.evaluation.clip_scores import direction_similarity
    from edit3dgs_ns.run_evaluation.measure import Captions

    source, target = clip.embed_texts(captions)
    direction_similarity(source[None], target[None], source, target)  # refuses captions without a difference
    return Captions(*captions, source, target)


def _settings(
    options: EvaluationOptions,
    run: TrainedRun,
    allowed: set[tuple[str, str]],
    notes: list[str],
    show: Callable[[str, int, int], None],
) -> list[Setting]:
    from edit3dgs_ns.evaluation.report_data import SETTINGS
    from edit3dgs_ns.rendering.views import cross_reenactment, novel_view, self_reenactment, thinned

    settings = [novel_view(run, allowed), self_reenactment(run, allowed, options.all_cameras)]
    if options.motion is not None:
        motion, said = read_driving_motion(options.motion, run, show)
        for text in said:
            _note(notes, f"--motion: {text}.")
        settings.append(cross_reenactment(run, motion))
    found = []
    for setting in settings:
        setting, stride = thinned(setting, options.max_frames)
        title = SETTINGS[setting.key]
        if setting.count == 0:
            _note(notes, f"{title}: the capture holds no such frames out, so there is no figure.")
            continue
        if stride > 1:
            _note(
                notes,
                f"{title}: every {stride}th frame; CLIP-C and flicker are larger steps apart, so worse than of all frames.",
            )
        found.append(setting)
    if not found:
        raise UserError(
            "The runs' capture holds no frames out (its val and test splits are empty). Give --motion FILE."
        )
    return found


def read_driving_motion(
    path: Path, run: TrainedRun, show: Callable[[str, int, int], None]
) -> tuple[FlameMotion, tuple[str, ...]]:
    """Another actor's motion on the avatar's head, and notes on it: its expressions and joints; the head stays where the avatar's
    mostly is.

    Raises:
        FileNotFoundError, ValueError: there is no such motion, or it belongs to another head model.
    """
    from edit3dgs_ns.tracking.driving import drive, open_driver

    driver = open_driver(path, run.head, progress=show)
    motion, notes = drive(driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head)
    return motion, (*driver.recorded.notes, *notes)


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
