"""Runs `edit3dgs evaluate`: checks the options, opens the runs, measures, and writes the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import Progress

from edit3dgs_ns.console import progress_bars, shown_on, warn, working
from edit3dgs_ns.run_evaluation.comparisons import (
    Comparison,
    open_comparisons,
    open_networks,
    unknown_words,
)
from edit3dgs_ns.run_evaluation.options import (
    EvaluationOptions,
    check_captions,
    check_request,
    output_folder,
)
from edit3dgs_ns.run_evaluation.runs import find_edited_runs, run_names

if TYPE_CHECKING:
    from edit3dgs_ns.evaluation.clip import Clip
    from edit3dgs_ns.evaluation.identity import IdentityEmbedding
    from edit3dgs_ns.evaluation.report_data import Report, RunReport
    from edit3dgs_ns.runs.trained_run import TrainedRun


def evaluate(options: EvaluationOptions, progress: Progress | None = None) -> tuple[Report, Path]:
    """Compare edited avatars with those that they came from.

    Args:
        options: what is asked for.
        progress: shows how far it is; None for one of its own.

    Returns:
        The report, and its report.md.

    Raises:
        ValueError, FileNotFoundError: anything that can be known before the first image is rendered.
    """
    check_request(options)
    with nullcontext(progress) if progress is not None else progress_bars() as bars:
        return _evaluate(options, bars)


def _evaluate(options: EvaluationOptions, progress: Progress) -> tuple[Report, Path]:
    captions = check_captions(options.source_caption, options.target_captions, len(options.runs))
    infos = find_edited_runs(options.runs, options.base)
    folder = output_folder(options.output, options.runs)
    with working(progress, f"Loading CLIP {options.clip}"):
        clip, identity = open_networks(options)
    unclear = unknown_words(captions, clip)
    for note in unclear:
        warn(note)
    with working(progress, "Opening the runs"):
        comparisons, notes = open_comparisons(options, infos, captions, clip, shown_on(progress))
    report = _measure(options, comparisons, clip, identity, folder, [*unclear, *notes], progress)
    with working(progress, "Writing the report"):
        return report, _write(report, comparisons, folder)


# -- measuring -------------------------------------------------------------------------------------------------------


def _measure(
    options: EvaluationOptions,
    comparisons: list[Comparison],
    clip: Clip,
    identity: IdentityEmbedding | None,
    folder: Path,
    notes: list[str],
    progress: Progress,
) -> Report:
    from edit3dgs_ns.evaluation.published import setup_difference
    from edit3dgs_ns.evaluation.report_data import Report
    from edit3dgs_ns.run_evaluation.truth import is_synthetic

    runs: list[RunReport] = []
    quality: dict[int, dict[str, dict[str, float]]] = {}
    fingerprint = clip.fingerprint
    for comparison in comparisons:
        name = comparison.info.name.replace("/", "_")
        frames = folder / "frames" / name if options.frames else None
        cache = folder / "embeddings" / f"{name}_{fingerprint}.npz"
        runs.append(_measure_run(comparison, clip, identity, cache, frames, progress))
        if id(comparison.base) not in quality:
            tick = ticking(progress, f"{comparison.info.name}: the avatar before", None)
            quality[id(comparison.base)] = quality_of(comparison.base, options.max_frames, tick)
        runs[-1].base_quality = quality[id(comparison.base)]
    synthetic = is_synthetic(comparisons[0].edited)
    report_notes = [f"CLIP: {clip.name}. {clip.note}".strip(), setup_difference(clip.name, synthetic), *notes]
    if options.max_frames:
        report_notes.append(
            f"Quality of the avatar before the edit: of at most {options.max_frames} images each, spread evenly."
        )
    if not any("lpips" in figures for run in runs for figures in run.base_quality.values()):
        report_notes.append("LPIPS: left out, AlexNet's weights are not on this machine.")
    network = "not asked for" if identity is None else identity.name
    return Report(clip=clip.name, identity=network, runs=runs, notes=report_notes)


def _measure_run(
    comparison: Comparison,
    clip: Clip,
    identity: IdentityEmbedding | None,
    cache: Path,
    frames: Path | None,
    progress: Progress,
) -> RunReport:
    from edit3dgs_ns.evaluation.embedding_cache import EmbeddingCache
    from edit3dgs_ns.evaluation.report_data import SETTINGS, RunReport
    from edit3dgs_ns.run_evaluation.measure import Embedders, embedder_of, measure_setting
    from edit3dgs_ns.run_evaluation.run_figures import NUM_TIMESTEPS, run_figures
    from edit3dgs_ns.run_evaluation.truth import MAX_TRUE_EDITS, compare_with_truth
    from edit3dgs_ns.training.lpips import LazyLpips

    info, base, edited = comparison.info, comparison.base, comparison.edited
    embed = EmbeddingCache(cache, clip.embed_images, clip.size)
    faces = None if identity is None else embedder_of(identity, embed, clip)
    embedders = Embedders(embed, faces, comparison.captions)
    report = RunReport(
        name=info.name,
        run=os.path.relpath(info.config),
        prompt=info.prompt,
        source_caption=comparison.captions.source,
        target_caption=comparison.captions.target,
        editor=info.editor,
    )

    def tick_of(what: str, total: int) -> Callable[[], None]:
        return ticking(progress, f"{info.name}: {what}", total)

    perceptual = LazyLpips()
    for setting in comparison.settings:
        title = SETTINGS[setting.key].lower()
        own = None if frames is None else frames / setting.key
        measured = measure_setting(base, edited, setting, embedders, own, tick_of(title, setting.count))
        if comparison.fits is not None:
            tick = tick_of(f"{title}, expressions", min(comparison.fits.count, setting.count))
            measured.figures |= comparison.fits.figures(edited, setting, comparison.truth, tick)
        if comparison.truth is not None and setting.motion is None:
            tick = tick_of(f"{title}, true edit", min(MAX_TRUE_EDITS, setting.count))
            measured.figures |= compare_with_truth(base, edited, setting, comparison.truth, perceptual, tick)
        report.settings[setting.key] = measured
    report.figures = run_figures(info, base, edited, tick_of("views", NUM_TIMESTEPS + 1))
    return report


def ticking(progress: Progress, what: str, total: int | None) -> Callable[[], None]:
    """Adds a progress bar; the function returned advances it."""
    task = progress.add_task(what, total=total)
    return lambda: progress.advance(task)


def quality_of(
    run: TrainedRun, most: int = 0, tick: Callable[[], None] = lambda: None
) -> dict[str, dict[str, float]]:
    """Quality of an avatar against its capture by GaussianAvatars' protocol, by key of SETTINGS; of at most `most` images each."""
    from edit3dgs_ns.run_evaluation.truth import base_quality
    from edit3dgs_ns.training.lpips import LazyLpips

    perceptual = LazyLpips()
    found = {
        key: base_quality(run, split, most, perceptual, tick)
        for key, split in (("novel_view", "val"), ("self_reenactment", "test"))
    }
    return {key: quality for key, quality in found.items() if quality}


def quality_rows(
    configs: Sequence[Path], max_frames: int, progress: Progress
) -> tuple[list[str], list[list[str]]]:
    """Returns the names of runs, and a table of their quality against their captures: a label, then a cell for each run."""
    from edit3dgs_ns.evaluation.report_data import METRICS, SETTINGS, Figure, formatted

    names = run_names([config.parent for config in configs])
    found = []
    for name, config in zip(names, configs, strict=True):
        with working(progress, f"Opening {config.parent}"):
            from edit3dgs_ns.runs.trained_run import TrainedRun

            run = TrainedRun.of_capture(config)
        with working(progress, f"Measuring {name}"):
            found.append(quality_of(run, max_frames))
    rows = []
    for key, title in SETTINGS.items():
        for metric in ("psnr", "ssim", "lpips"):
            cells = [
                formatted(METRICS[metric], Figure(quality.get(key, {}).get(metric))) for quality in found
            ]
            if any(cell != "–" for cell in cells):
                rows.append([f"{title}: {METRICS[metric].title}", *cells])
    return names, rows


# -- writing ---------------------------------------------------------------------------------------------------------


def _write(report: Report, comparisons: list[Comparison], folder: Path) -> Path:
    from edit3dgs_ns.evaluation.report_files import write_report
    from edit3dgs_ns.evaluation.report_plots import draw_plots
    from edit3dgs_ns.run_evaluation.comparison_grids import draw_before_after, draw_true_edits

    folder.mkdir(parents=True, exist_ok=True)
    before_after = draw_before_after(comparisons, folder / "before_after.png")
    truth = draw_true_edits(comparisons, folder / "true_edit.png")
    return write_report(report, folder, before_after, draw_plots(report, folder), truth)[1]
