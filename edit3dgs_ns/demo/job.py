"""`make demo`: captures a head, trains its avatar, edits it with a prompt, and renders before and after.

The four steps are those a user does by hand: `edit3dgs capture`, `ns-train rigged-splatfacto-fast`,
`ns-train edit3dgs`, and renders. Everything lands in one folder:

    capture/  base/  edit/                                    what the steps make
    before_after.png  reenactment.mp4  report.json            what there is to see
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edit3dgs_ns.console import print_error, print_table, progress_bars, say, say_command, working
from edit3dgs_ns.demo.job_steps import Step, StepRunner
from edit3dgs_ns.demo.settings import (
    BASE_METHOD,
    CHECKPOINTS,
    RUN,
    DemoFiles,
    DemoSettings,
    run_dir,
)
from edit3dgs_ns.editing.diffusion.model_folder import check_model, editor_version
from edit3dgs_ns.errors import MissingFileError, UserError


class TrainingFailed(Exception):
    """`ns-train` ended with an error, which it has printed itself."""


def run_demo(settings: DemoSettings, out: Path) -> int:
    """Do all steps that are not done yet, and say where the results are.

    Returns:
        Exit code: 0, or 1 when a training failed.

    Raises:
        ValueError: there is no prompt.
        FileNotFoundError: the editing model is not there.
        FileExistsError: `out` holds something that the demo did not make.
    """
    if not settings.prompt.strip():
        raise UserError("--prompt is empty. Say what to change, for example: --prompt 'Make him look older'")
    check_model(settings.editor)  # before ten minutes of training that would be for nothing
    demo = Demo(settings, Path(os.path.abspath(out)))
    try:
        demo.run()
    except TrainingFailed as error:
        print_error(str(error))
        return 1
    demo.print_result()
    return 0


class Demo:
    """One run of the demo in its folder."""

    def __init__(self, settings: DemoSettings, out: Path):
        self.settings, self.files = settings, DemoFiles(out)

    def run(self) -> None:
        """All steps, in order."""
        runner = StepRunner(self.files.out)
        seconds = {step.name: runner.run(step) for step in self._making_steps()}
        runner.run(self._render_step(seconds))

    def make_base(self) -> None:
        """The capture and its avatar alone."""
        runner = StepRunner(self.files.out)
        for step in self._making_steps()[:2]:
            runner.run(step)

    # -- the steps -----------------------------------------------------------------------------------------

    def _making_steps(self) -> list[Step]:
        s = self.settings
        capture = {"version": importlib.metadata.version("edit3dgs-ns"), "capture": asdict(s.capture)}
        base = {
            **capture,
            "method": BASE_METHOD,
            "base_steps": s.base_steps,
            "train_flags": (*s.base_flags, *s.train_flags),
        }
        edit = {
            **base,
            "prompt": s.prompt,
            "editor": s.editor,
            "editor_version": editor_version(s.editor),
            "edit": asdict(s.edit),
            "edit_flags": s.edit_flags,
        }
        return [
            Step(
                "capture",
                "1/4 Capture a head from many cameras",
                capture,
                (self.files.capture,),
                self._capture,
            ),
            Step("base", "2/4 Train its avatar", base, (self.files.base,), self._train_base),
            Step("edit", f"3/4 Edit the avatar: “{s.prompt}”", edit, (self.files.edit,), self._train_edit),
        ]

    def _render_step(self, seconds: Mapping[str, float]) -> Step:
        settings = {**self._making_steps()[-1].settings, "render": asdict(self.settings.render)}
        outputs = (self.files.grid, self.files.video, self.files.report)

        def action(resume: bool) -> None:
            self._render(seconds)

        return Step("render", "4/4 Render before and after", settings, outputs, action)

    def _capture(self, resume: bool) -> None:
        with progress_bars() as progress:
            with working(progress, "Preparing the head"):
                from edit3dgs_ns.synthetic.writer import write_capture

            task = progress.add_task("Ray tracing images", total=None)
            # A broken-off capture goes on by itself: images that are there are kept.
            write_capture(
                self.files.capture,
                **asdict(self.settings.capture),
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )

    def _train_base(self, resume: bool) -> None:
        steps = self.settings.base_steps
        checkpoints = run_dir(self.files.base, BASE_METHOD) / CHECKPOINTS
        # ns-train counts from the step that it resumes at.
        done = newest_step(checkpoints)
        left = steps if done is None else steps - (done + 1)
        flags = ("--max-num-iterations", str(left), *self.settings.base_flags, *self.settings.train_flags)
        self._ns_train(BASE_METHOD, self.files.base, steps, flags)

    def _train_edit(self, resume: bool) -> None:
        flags = self.settings.flags_of_edit(run_dir(self.files.base, BASE_METHOD))
        self._ns_train("edit3dgs", self.files.edit, self.settings.edit.steps, flags)

    def _ns_train(self, method: str, folder: Path, steps: int, flags: tuple[str, ...]) -> None:
        """Train up to `steps`, going on from the newest checkpoint in `folder` if there is one.

        Raises:
            TrainingFailed: ns-train ended with an error.
        """
        checkpoints = run_dir(folder, method) / CHECKPOINTS
        done = newest_step(checkpoints)
        if done is not None and done + 1 >= steps:
            return
        resume = () if done is None else ("--load-dir", str(checkpoints))
        command = training_command(method, folder, self.files.capture, (*resume, *flags))
        say(shlex.join(command), "dim")
        code = run_ns_train(command[1:])
        if code != 0:
            raise TrainingFailed(
                f"ns-train {method} ended with code {code}; what it says is above. The same command goes on."
            )

    def _render(self, seconds: Mapping[str, float]) -> None:
        start = time.monotonic()
        with progress_bars() as progress:
            with working(progress, "Loading PyTorch and Nerfstudio"):
                from edit3dgs_ns.demo.result import write_result

            write_result(self.settings, self.files, seconds, start, progress)

    # -- the end -------------------------------------------------------------------------------------------

    def print_result(self) -> None:
        """The figures and where everything is."""
        report = json.loads(self.files.report.read_text(encoding="utf-8"))
        say()
        edit = report["edit"]
        print_table(("figure", "value"), _summary(report), title=f"“{edit['prompt']}”")
        for path, what in (
            (self.files.grid, "before and after, several views and expressions: look at this first"),
            (self.files.video, "the edited head (right) in a sequence it was not trained on"),
            (self.files.report, "the figures"),
        ):
            say(f"  {_shortest(path)}  {what}")
        say("Turn it around yourself:")
        config = run_dir(self.files.edit, "edit3dgs") / "config.yml"
        say_command("ns-viewer", "--load-config", _shortest(config))


def _summary(report: dict[str, Any]) -> list[tuple[str, str]]:
    base, edit, seconds = report["base"], report["edit"], report["seconds"]
    rows = []
    for task, name in (("novel_view", "held-out camera"), ("self_reenactment", "unseen sequence")):
        figures = base[task]
        rows.append((f"avatar, {name}", f"PSNR {figures['psnr']:.1f} dB, SSIM {figures['ssim']:.3f}"))
    return [
        *rows,
        ("edited images", f"{edit['edited_images']} in {edit['rounds']} rounds"),
        ("mean change on the head", f"{edit['change_on_head']:.3f} (of 1)"),
        ("mean change of the background", f"{edit['change_on_background']:.4f}"),
        ("minutes", ", ".join(f"{name} {value / 60:.1f}" for name, value in seconds.items())),
    ]


def training_command(method: str, folder: Path, capture: Path, flags: Sequence[str]) -> list[str]:
    """The words of `ns-train` that train on a capture and put the run where `run_dir` finds it."""
    return [
        "ns-train", method,
        "--output-dir", str(folder.parent), "--experiment-name", folder.name, "--timestamp", RUN,
        "--vis", "tensorboard", *flags,
        "nersemble-data", "--data", str(capture),
    ]  # fmt: skip


def newest_step(checkpoints: Path) -> int | None:
    """Step of the newest whole checkpoint, or None; a torn one (ns-train was killed in writing) is removed.

    A checkpoint is a zip file, whose directory is written last: a torn one does not open as a zip.
    """
    steps = []
    for path in checkpoints.glob("step-*.ckpt"):
        if zipfile.is_zipfile(path):
            steps.append(int(path.stem.removeprefix("step-")))
        else:
            path.unlink()
    return max(steps, default=None)


def run_ns_train(arguments: list[str]) -> int:
    """Run ns-train, with its output passing through, and return its exit code."""
    # Nerfstudio's pinned release warns of what newer torch versions will drop: nothing a user can act on.
    environment = {"PYTHONWARNINGS": "ignore", **os.environ}
    with subprocess.Popen([find_ns_train(), *arguments], env=environment) as process:
        try:
            return process.wait()
        except (
            BaseException
        ):  # Ctrl-C, SIGTERM: it saves what it has done, which `subprocess.run` gives it no time for
            process.terminate()
            process.wait()
            raise


def find_ns_train() -> str:
    """The ns-train of this Python's environment.

    Raises:
        FileNotFoundError: there is none.
    """
    beside = Path(sys.executable).with_name("ns-train")
    found = str(beside) if beside.is_file() else shutil.which("ns-train")
    if found is None:
        raise MissingFileError(
            f"ns-train is neither beside {sys.executable} nor on the PATH. Run: make setup"
        )
    return found


def _shortest(path: Path) -> str:
    """The path as seen from where the user is, when that is inside."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
