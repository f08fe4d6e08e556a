"""The command `edit3dgs evaluate`: its options, and what it prints."""

from __future__ import annotations

from pathlib import Path

from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.clip_files import DEFAULT_CLIP


def evaluate_command(
    *,
    load_config: Path | None = None,
    runs: tuple[Path, ...] = (),
    source_caption: str | None = None,
    target_caption: tuple[str, ...] = (),
    base: Path | None = None,
    motion: Path | None = None,
    clip: str = DEFAULT_CLIP,
    identity: str = "clip",
    output: Path | None = None,
    frames: bool = False,
    max_frames: int = 0,
    all_cameras: bool = False,
    expression_frames: int = 6,
    true_edit: str | None = None,
    quality_only: bool = False,
) -> int:
    """Compare an edited avatar with the one it came from: CLIP-S, CLIP-C and more, as a table, report.md and report.json.

    Three settings, as in the paper: a held-out camera, a sequence not trained on, and with --motion another actor's motion.

    Args:
        load_config: config.yml of the run of `ns-train edit3dgs`.
        runs: Several of them instead, side by side in one table. They share their capture.
        source_caption: Describes the picture before the edit: "a photo of a man".
        target_caption: Describes the picture after it: "a photo of an old man". One for all runs, or one for each.
        base: The avatar before the edit: a run's folder, config.yml or checkpoint. Default: the one that the run names.
        motion: Another actor's motion (a sequence's folder or file, as for `edit3dgs reenact`): cross-identity reenactment.
        clip: CLIP by hub id, by folder in transformers' format, or `demo`: a small one that comes with this package, knows
            our synthetic heads alone, and needs no download.
        identity: What tells whether it is still the same person: `clip`, `none`, or package.module:function of your own that
            returns an object with a `name` and a method `embed_images`.
        output: Folder for the report. Default: `evaluation` in the run's folder; of several runs, outputs/evaluation.
        frames: Write every frame before and after as well.
        max_frames: At most about so many frames of each setting; 0 for all. Fewer are farther apart, which lowers CLIP-C.
        all_cameras: Self-reenactment from all cameras instead of the held-out one.
        expression_frames: Frames of each setting on which jaw, lips, lids and gaze are measured (seconds each); 0 for none.
        true_edit: For captures of `edit3dgs capture`: the edit whose true result is compared with, or `none`. Default: the
            one whose wordings hold the prompt.
        quality_only: Only the avatar's quality against its capture, as GaussianAvatars reports it. Needs no captions, and takes
            any run of an avatar.
    """
    configs = _chosen(load_config, runs)
    if quality_only:
        return _quality(configs, max_frames)
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.run_evaluation.job import evaluate
    from edit3dgs_ns.run_evaluation.subjects import EvaluationOptions

    options = EvaluationOptions(
        runs=configs,
        source_caption=source_caption,
        target_captions=target_caption,
        base=base,
        clip=clip,
        identity=identity,
        motion=motion,
        output=output,
        frames=frames,
        max_frames=max_frames,
        all_cameras=all_cameras,
        expression_frames=expression_frames,
        true_edit=true_edit,
    )
    report, path = evaluate(options)
    from edit3dgs_ns.evaluation.report_table import rich_table

    CONSOLE.print(rich_table(report))
    CONSOLE.print(f"With pictures: [bold]{path}[/bold]", soft_wrap=True)
    return 0


def _chosen(load_config: Path | None, runs: tuple[Path, ...]) -> tuple[Path, ...]:
    if (load_config is None) == (not runs):
        what = "both were given" if runs else "neither was given"
        raise UserError(
            f"--load-config RUN/config.yml names one run, --runs A B C several; {what}, expected one of the two."
        )
    return (load_config,) if load_config is not None else runs


def _quality(configs: tuple[Path, ...], max_frames: int) -> int:
    from rich.table import Table

    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.evaluation.report_data import METRICS, SETTINGS, Figure, shown
    from edit3dgs_ns.run_evaluation.job import quality_of
    from edit3dgs_ns.run_evaluation.runs import config_file, run_names
    from edit3dgs_ns.runs.trained_run import TrainedRun

    files = [config_file(path) for path in configs]
    table = Table(title="Quality against the capture", title_justify="left")
    for name in ("", *run_names([path.parent for path in files])):
        table.add_column(name, justify="right" if name else "left")
    found = [quality_of(TrainedRun.of_capture(path), max_frames) for path in files]
    for key, title in SETTINGS.items():
        for name in ("psnr", "ssim", "lpips"):
            cells = [shown(METRICS[name], Figure(quality.get(key, {}).get(name))) for quality in found]
            if any(cell != "–" for cell in cells):
                table.add_row(f"{title}: {METRICS[name].title}", *cells)
    CONSOLE.print(table)
    return 0
