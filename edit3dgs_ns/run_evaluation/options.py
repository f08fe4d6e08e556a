"""Options of an evaluation, checked before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.clip_files import DEFAULT_CLIP, find_clip
from edit3dgs_ns.run_evaluation.runs import BASE, check_edited, config_file
from edit3dgs_ns.runs.run_files import free_output
from edit3dgs_ns.splats.checkpoints import find_checkpoint

FOLDER, REPORT_FILE = "evaluation", "report.md"
"""Folder of the report and of the cached embeddings, in the run's folder unless --output names another one."""


@dataclass(frozen=True)
class EvaluationOptions:
    """The options of `edit3dgs evaluate`; its --help explains them."""

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


def check_captions(source: str | None, targets: Sequence[str], runs: int) -> list[tuple[str, str]]:
    """The (source, target) captions of each run.

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


def check_numbers(options: EvaluationOptions) -> None:
    """Raises a UserError for numbers out of range."""
    for option, value, least in (
        ("--max-frames", options.max_frames, 2),
        ("--expression-frames", options.expression_frames, 1),
    ):
        if value != 0 and value < least:
            raise UserError(f"{option} {value}: expected {least} or more, or 0.")


def check_request(options: EvaluationOptions) -> None:
    """Raises a UserError, MissingFileError or ExistingFileError for mistakes that show without loading a run."""
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
    """Folder of the report: `output`, or `evaluation` in the run's own folder; of several runs, outputs/evaluation."""
    if output is not None:
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is a file; expected a folder, or a name that is free.")
        return output
    return config_file(runs[0]).parent / FOLDER if len(runs) == 1 else Path("outputs") / FOLDER
