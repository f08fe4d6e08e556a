"""What an evaluation is asked for, checked, and the runs that it is about, opened: all that comes before the first render."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.clip_files import DEFAULT_CLIP, find_clip
from edit3dgs_ns.run_evaluation.runs import BASE, EditedRun, OpenRuns, check_edited, config_file
from edit3dgs_ns.runs.run_files import free_output
from edit3dgs_ns.splats.checkpoints import find_checkpoint

if TYPE_CHECKING:
    from edit3dgs_ns.evaluation.clip import Clip
    from edit3dgs_ns.evaluation.identity import IdentityEmbedding
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.rendering.views import Setting
    from edit3dgs_ns.run_evaluation.expression import ExpressionFits
    from edit3dgs_ns.run_evaluation.measure import Captions
    from edit3dgs_ns.run_evaluation.truth import TrueEdit
    from edit3dgs_ns.runs.trained_run import TrainedRun

FOLDER, REPORT_FILE = "evaluation", "report.md"
"""In a run's folder, unless another place is given: the report, and the embeddings that it was made from."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked for; see `edit3dgs evaluate --help`."""

    runs: tuple[Path, ...]
    source_caption: str | None
    target_captions: tuple[str, ...]
    base: Path | None = None
    clip: str = DEFAULT_CLIP
    identity: str = "clip"
    motion: Path | None = None
    output: Path | None = None
    frames: bool = False
    max_frames: int = 0
    all_cameras: bool = False
    expression_frames: int = 6
    true_edit: str | None = None
    overwrite: bool = False


@dataclass
class Subject:
    """A run that is open, and all that was found out about it."""

    info: EditedRun
    base: TrainedRun
    edited: TrainedRun
    captions: Captions
    settings: list[Setting]
    truth: TrueEdit | None
    fits: ExpressionFits | None


def check_captions(source: str | None, targets: Sequence[str], runs: int) -> list[tuple[str, str]]:
    """(source, target) for each run.

    Raises:
        ValueError: a caption is missing, both are the same, or there are too many.
    """
    given = [(source or "").strip(), *(target.strip() for target in targets)]
    if not given[0] or len(given) == 1 or not all(given):
        option = "--source-caption" if not given[0] else "--target-caption"
        raise UserError(
            f"{option} is missing. CLIP-S and CLIP-C need a caption of the image before the edit and one of the image after "
            'it, for example: --source-caption "a photo of a man" --target-caption "a photo of an old man"'
        )
    if len(targets) not in (1, runs):
        raise UserError(
            f"--target-caption: {len(targets)} captions for {runs} runs. Give one for all, or one for each."
        )
    if given[0] in given[1:]:
        raise UserError(
            f"--source-caption and --target-caption are both {given[0]!r}: describe the image before and the image after the "
            "edit."
        )
    each = given[1:] if len(targets) == runs else given[1:] * runs
    return [(given[0], target) for target in each]


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


def check_numbers(options: EvaluationOptions) -> None:
    """Raises a ValueError for numbers that make no sense."""
    for option, value, least in (
        ("--max-frames", options.max_frames, 2),
        ("--expression-frames", options.expression_frames, 1),
    ):
        if value != 0 and value < least:
            raise UserError(f"{option} {value}: expected {least} or more, or 0.")


def check_request(options: EvaluationOptions) -> None:
    """Raises a ValueError, FileNotFoundError or FileExistsError for what can be known to be wrong without loading a run."""
    check_captions(options.source_caption, options.target_captions, len(options.runs))
    check_numbers(options)
    find_clip(options.clip)
    if options.base is not None:
        find_checkpoint(options.base, "--base", BASE)
    for config in options.runs:
        check_edited(config_file(config))
    report = output_folder(options.output, options.runs) / REPORT_FILE
    free_output(report, options.overwrite)


def output_folder(output: Path | None, runs: Sequence[Path]) -> Path:
    """Where the report goes: what is asked for, or the run's own folder; of several runs, outputs/evaluation."""
    if output is not None:
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is a file; expected a folder, or a name that is free.")
        return output
    return config_file(runs[0]).parent / FOLDER if len(runs) == 1 else Path("outputs") / FOLDER


def open_networks(options: EvaluationOptions) -> tuple[Clip, IdentityEmbedding | None]:
    import torch

    from edit3dgs_ns.evaluation.clip import Clip
    from edit3dgs_ns.evaluation.identity import load_identity_embedding

    clip = Clip(options.clip, device="cuda" if torch.cuda.is_available() else "cpu")
    return clip, load_identity_embedding(options.identity, clip)


def open_subjects(
    options: EvaluationOptions, infos: list[EditedRun], captions: list[tuple[str, str]], clip: Clip
) -> tuple[list[Subject], list[str]]:
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
    subjects = []
    for info, (base, edited), pair in zip(infos, pairs, captions, strict=True):
        settings = _settings(options, edited, allowed, notes)
        if options.expression_frames and id(base) not in fits:
            fits[id(base)] = ExpressionFits(base, options.expression_frames)
        truth = find_true_edit(edited, info.prompt, options.true_edit)
        subjects.append(
            Subject(info, base, edited, _embedded(pair, clip), settings, truth, fits.get(id(base)))
        )
    return subjects, notes


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
    options: EvaluationOptions, run: TrainedRun, allowed: set[tuple[str, str]], notes: list[str]
) -> list[Setting]:
    from edit3dgs_ns.evaluation.report_data import SETTINGS
    from edit3dgs_ns.rendering.views import cross_reenactment, novel_view, self_reenactment, thinned

    settings = [novel_view(run, allowed), self_reenactment(run, allowed, options.all_cameras)]
    if options.motion is not None:
        settings.append(cross_reenactment(run, read_driving_motion(options.motion, run)))
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


def read_driving_motion(path: Path, run: TrainedRun) -> FlameMotion:
    """Another actor's motion on the avatar's head: its expressions and joints; the head stays where the avatar's mostly is.

    Raises:
        FileNotFoundError, ValueError: there is no such motion, or it belongs to another head model.
    """
    from edit3dgs_ns.capture.driver import read_driver
    from edit3dgs_ns.flame.retarget import retarget

    driver = read_driver(path, run.head)
    motion, _ = retarget(driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head)
    return motion


def _note(notes: list[str], text: str) -> None:
    if text not in notes:
        notes.append(text)
