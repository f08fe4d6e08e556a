"""The command `edit3dgs evaluate`: an edited avatar compared with the one it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edit3dgs_ns.commands.options import check_motion
from edit3dgs_ns.console import progress_bars, say
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.evaluation.clip_files import DEFAULT_CLIP
from edit3dgs_ns.runs.run_files import find_config

if TYPE_CHECKING:
    from edit3dgs_ns.run_evaluation.options import EvaluationOptions


@dataclass(kw_only=True)
class EvaluateCommand:
    """Compare an edited avatar with the one it came from: CLIP-S, CLIP-C and more, as a table, report.md and report.json.

    Three settings, as in the paper: a held-out camera, a sequence not trained on, and with --motion another actor's motion.
    """

    load_config: Path | None = None
    """config.yml of the run of `ns-train edit3dgs`."""
    runs: tuple[Path, ...] = ()
    """Several of them instead, side by side in one table. They share their capture."""
    source_caption: str | None = None
    """Describes the image before the edit: "a photo of a man"."""
    target_caption: tuple[str, ...] = ()
    """Describes the image after it: "a photo of an old man". One for all runs, or one for each."""
    base: Path | None = None
    """The avatar before the edit: a run's folder, config.yml or checkpoint. Default: the one that the run names."""
    motion: Path | None = None
    """Another actor's motion (a sequence's folder or file, as for `edit3dgs reenact`): cross-identity reenactment."""
    clip: str = DEFAULT_CLIP
    """CLIP by hub id, by folder in transformers' format, or `demo`: a small one that comes with this package, knows our
    synthetic heads alone, and needs no download."""
    identity: str = "clip"
    """What tells whether it is still the same person: `clip`, `none`, or package.module:function of your own that returns an
    object with a `name` and a method `embed_images`."""
    output: Path | None = None
    """Folder for the report. Default: evaluation/ in the run's folder; of several runs, outputs/evaluation."""
    frames: bool = False
    """Write every frame before and after as well."""
    max_frames: int = 0
    """At most about this many frames of each setting; 0 for all. Fewer are farther apart, which lowers CLIP-C."""
    all_cameras: bool = False
    """Self-reenactment from all cameras instead of the held-out one."""
    expression_frames: int = 6
    """Frames of each setting on which jaw, lips, lids and gaze are measured (seconds each); 0 for none."""
    true_edit: str | None = None
    """For captures of `edit3dgs capture`: the edit whose true result is compared with, or `none`. Default: the one whose
    wordings hold the prompt."""
    quality_only: bool = False
    """Only the avatar's quality against its capture, as GaussianAvatars reports it. Needs no captions, and takes any run of
    an avatar."""
    overwrite: bool = False
    """Replace a report that is there."""

    def execute(self) -> int:
        """Measures, prints the table and names the report."""
        configs = self._configs()
        check_motion(self.motion)
        if self.quality_only:
            return self._run_quality(configs)
        from edit3dgs_ns.run_evaluation.options import EvaluationOptions, check_request

        options = EvaluationOptions(
            runs=configs,
            source_caption=self.source_caption,
            target_captions=self.target_caption,
            base=self.base,
            clip=self.clip,
            identity=self.identity,
            motion=self.motion,
            output=self.output,
            frames=self.frames,
            max_frames=self.max_frames,
            all_cameras=self.all_cameras,
            expression_frames=self.expression_frames,
            true_edit=self.true_edit,
            overwrite=self.overwrite,
        )
        check_request(options)
        return self._run_comparison(options)

    def _configs(self) -> tuple[Path, ...]:
        if (self.load_config is None) == (not self.runs):
            what = "both were given" if self.runs else "neither was given"
            raise UserError(
                f"--load-config RUN/config.yml names one run, --runs A B C several; {what}, expected one of the two."
            )
        if self.load_config is not None:
            return (find_config(self.load_config),)
        return tuple(find_config(path, "--runs") for path in self.runs)

    def _run_comparison(self, options: EvaluationOptions) -> int:
        from edit3dgs_ns.run_evaluation.job import evaluate

        with progress_bars() as progress:
            report, path = evaluate(options, progress)
        from edit3dgs_ns.evaluation.report_table import print_report

        print_report(report)
        say(f"With images: {path}")
        return 0

    def _run_quality(self, configs: tuple[Path, ...]) -> int:
        from edit3dgs_ns.run_evaluation.job import quality_rows

        with progress_bars() as progress:
            names, rows = quality_rows(configs, self.max_frames, progress)
        from edit3dgs_ns.console import print_table

        print_table(("", *names), rows, title="Quality against the capture", right=range(1, len(names) + 1))
        return 0
