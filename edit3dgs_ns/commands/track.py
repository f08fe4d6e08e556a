"""The command `edit3dgs track`: a video of a head becomes a capture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edit3dgs_ns.console import progress_bars, say, say_command, shown_on, warn, working
from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.folder_lock import only_process


@dataclass(kw_only=True)
class TrackCommand:
    """Track the head in a video of one person, and write a capture to train an avatar on.

    Nothing leaves the machine. A broken-off run goes on with the same command. Look at OUT/tracking.mp4 first: it shows the
    fitted head over the frames.
    """

    video: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="VIDEO")]
    """A video, or a folder of its frames in the order of their names."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """Folder to write."""
    start: float = 0.0
    """Seconds from the video's beginning where tracking starts."""
    end: float = math.inf
    """Seconds from the video's beginning where it ends."""
    fps: float | None = None
    """Frames a second that are used; the video's own, at most 30, where it is not given."""
    size: int = 512
    """Pixels of the side of the square images around the head."""
    focal: float | None = None
    """Focal length in pixels of the video's frames, if it is known; else it is estimated."""
    head: Path | None = None
    """FLAME's model file; without it, the embedded open head."""
    masks: Path | None = None
    """Folder of masks of the person, one for each frame that is used; else they are made by segmentation."""
    multi: bool = False
    """VIDEO is the folder of a capture with several synchronised cameras whose places and focal lengths its
    transforms_*.json say, without head parameters: all cameras are fitted together, and the capture gets them."""
    overwrite: bool = False
    """Replace a capture of another video or of other options in this folder."""

    def execute(self) -> int:
        """Tracks the video and says how well it went and how to go on."""
        video, out = self.video.expanduser(), self.out.expanduser()
        for option, path in (("VIDEO", video), ("--head", self.head), ("--masks", self.masks)):
            if path is not None and not path.exists():
                raise MissingFileError(f"{option} {path}: no such file or folder.")
        if self.multi:
            return self._track_capture(video, out)
        from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
        from edit3dgs_ns.tracking.output import TrackingOptions, check_folder, continued_note, settings_of
        from edit3dgs_ns.tracking.video import VideoPart, describe_video

        options = TrackingOptions(
            VideoPart(self.start, self.end, self.fps), self.size, self.focal, self.masks
        )
        options.validate()
        describe_video(video, options.part)
        settings = settings_of(video, self.head or OPEN_HEAD_PATH, options)
        if check_folder(out, settings, self.overwrite) == "goes on":
            say(continued_note(out))
        with only_process(out), progress_bars() as progress:
            with working(progress, "Preparing to track"):
                from edit3dgs_ns.flame.loading import load_assets
                from edit3dgs_ns.tracking.job import track_video

                head = load_assets(self.head or OPEN_HEAD_PATH)
            result = track_video(
                video, out, head, options, overwrite=self.overwrite, progress=shown_on(progress)
            )
        report = result.report
        for note in report["notes"]:
            warn(note)
        say(
            f"{report['frames']} frames tracked: landmarks are missed by {report['reprojection_percent']:.1f} % of the distance "
            f"between the eyes, {report['worst_percent']:.1f} % in the worst frame ({report['worst_frame']})."
        )
        say(f"Look at {out / 'tracking.mp4'}. If the head fits, train its avatar with")
        say_command("ns-train", "rigged-splatfacto-fast", "nersemble-data", "--data", out)
        return 0

    def _track_capture(self, capture: Path, out: Path) -> int:
        """Several cameras."""
        given = {
            "--start": self.start != 0, "--end": self.end != math.inf, "--fps": self.fps is not None, "--size": self.size != 512,
            "--focal": self.focal is not None, "--masks": self.masks is not None,
        }  # fmt: skip
        if any(given.values()):
            names = ", ".join(name for name, is_given in given.items() if is_given)
            raise UserError(f"{names}: not with --multi: the capture says it. Leave it out.")
        from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
        from edit3dgs_ns.tracking.multi_capture import MultiCapture
        from edit3dgs_ns.tracking.output import check_folder, continued_note

        settings = MultiCapture.read(capture).settings(self.head or OPEN_HEAD_PATH)
        if check_folder(out, settings, self.overwrite) == "goes on":
            say(continued_note(out))
        with only_process(out), progress_bars() as progress:
            with working(progress, "Preparing to track"):
                from edit3dgs_ns.flame.loading import load_assets
                from edit3dgs_ns.tracking.multi_job import track_capture

                head = load_assets(self.head or OPEN_HEAD_PATH)
            report = track_capture(capture, out, head, overwrite=self.overwrite, progress=shown_on(progress))
        for note in report["notes"]:
            warn(note)
        say(
            f"{report['frames']} timesteps of {report['cameras']} cameras tracked: landmarks are missed by "
            f"{report['reprojection_percent']:.1f} % of the distance between the eyes, {report['worst_percent']:.1f} % at worst."
        )
        say(f"Look at {out / 'tracking.mp4'}. If the head fits, train its avatar with")
        say_command("ns-train", "rigged-splatfacto-fast", "nersemble-data", "--data", out)
        return 0
