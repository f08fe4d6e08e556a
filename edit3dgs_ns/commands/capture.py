"""The command `edit3dgs capture`: a synthetic multi-view capture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edit3dgs_ns.console import progress_bars, say, say_command, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.folder_lock import only_process


@dataclass(kw_only=True)
class CaptureCommand:
    """Write a synthetic multi-view capture of a talking head, laid out like a NeRSemble capture.

    The head is ray traced from the embedded open head. The same command always writes the same files.
    """

    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write. Each sequence gets a folder of its own in it, next to the combined data set."""
    seed: int = 0
    """Which person. Every number gives another face, skin, hair and way of moving."""
    resolution: tuple[int, int] = (256, 256)
    """Width and height of the images in pixels."""
    cameras: int = 16
    """How many cameras stand in front of the head (NeRSemble has 16)."""
    frames: int = 24
    """How many timesteps each sequence has."""
    samples: int = 6
    """Rays through each pixel: more is smoother and slower."""
    workers: int = 0
    """Processes that render; 0 is one per core."""
    overwrite: bool = False
    """Replace a capture of other settings in this folder."""

    def execute(self) -> int:
        """Writes the capture and says how to train an avatar on it."""
        if self.workers < 0:
            raise UserError(f"--workers {self.workers}: expected 0 (one per core) or more.")
        out = self.out.expanduser()
        from edit3dgs_ns.synthetic.settings import CaptureSettings, check_capture_folder

        width, height = self.resolution
        settings = CaptureSettings(self.seed, width, height, self.cameras, self.frames, self.samples)
        settings.validate()
        check_capture_folder(out, settings, self.overwrite)
        with only_process(out), progress_bars() as progress:
            with working(progress, "Preparing the head"):
                from edit3dgs_ns.synthetic.writer import write_capture

            task = progress.add_task("Ray tracing images", total=None)
            data = write_capture(
                out,
                **asdict(settings),
                workers=self.workers or None,
                overwrite=self.overwrite,
                progress=lambda done, total: progress.update(task, completed=done, total=total),
            )
        say(f"The capture is in {data}. Train an avatar on it with")
        say_command("ns-train", "rigged-splatfacto-fast", "nersemble-data", "--data", data)
        return 0
