"""The command `edit3dgs demo`: from nothing to an edited head."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edit3dgs_ns.errors import ExistingFileError, UserError


@dataclass(kw_only=True)
class DemoCommand:
    """Capture a head, train its avatar, edit it with a prompt, and show the result.

    Finished steps are kept: a second run reuses what is there, a broken-off run goes on.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[OUT]")] = Path("outputs/demo")
    """Folder for everything that the demo makes."""
    prompt: str = "Make him look older"
    """The edit. The embedded demo editor knows a few; the documentation lists them."""
    seed: int = 12
    """Which person the capture shows."""
    quick: bool = False
    """The same in two to three minutes on two cores, with smaller images, fewer of them and less training."""
    tiny: bool = False
    """A run of a minute with tiny images and hardly any training: it shows that everything works together, and nothing
    else."""

    def execute(self) -> int:
        """Does the steps that are not done yet."""
        if not self.prompt.strip():
            raise UserError(
                "--prompt is empty. Say what to change, for example: --prompt 'Make him look older'"
            )
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"{self.out} is a file. Name a folder for what the demo makes.")
        from edit3dgs_ns.demo.job_steps import MARKERS

        if self.out.is_dir() and any(self.out.iterdir()) and not (self.out / MARKERS).is_dir():
            raise ExistingFileError(
                f"{self.out} is not empty and holds no demo of ours ({MARKERS} is missing). Name a new folder."
            )
        if self.quick and self.tiny:
            raise UserError("--quick and --tiny exclude each other: give one of them.")
        from edit3dgs_ns.demo.settings import DemoSettings

        make = DemoSettings.quick if self.quick else DemoSettings.tiny if self.tiny else DemoSettings
        settings = make()
        settings = settings.with_options(prompt=self.prompt, seed=self.seed)
        settings.capture.validate()
        from edit3dgs_ns.demo.job import run_demo

        return run_demo(settings, self.out)
