"""Is a capture whole? Every file that it names is looked at, and every problem is reported, before hours of training are lost.

    report = check_capture(find_capture(Path("UNION10_306")))
    for problem in report.problems: print(problem.where, problem.what)

Quick: 22,000 images with masks take some seconds from a local disk, because only the first and last bytes of an image are
read. `thorough` decodes all of them.
"""

from __future__ import annotations

from pathlib import Path

from edit3dgs_ns.capture.check_content import check_content
from edit3dgs_ns.capture.check_frames import check_frames
from edit3dgs_ns.capture.check_head import check_head
from edit3dgs_ns.capture.check_images import check_images
from edit3dgs_ns.capture.check_report import CaptureReport, Problem, Progress
from edit3dgs_ns.capture.transforms import SPLITS, FrameEntry, each_frame, read_transforms, transforms_path
from edit3dgs_ns.errors import UserError


def check_capture(
    folder: Path, thorough: bool = False, flame_model: Path | None = None, progress: Progress | None = None
) -> CaptureReport:
    """Check a capture.

    Args:
        folder: with the transforms files; see `find_capture`.
        thorough: decode all images and masks, instead of looking at their first and last bytes.
        flame_model: head that the capture was tracked with; default as for training.
        progress: is told how far the check is.
    """
    report = CaptureReport(folder)
    heads: set[str] = set()
    by_split = {split: _read_split(report, split, heads) for split in SPLITS}
    frames = [frame for entries in by_split.values() for frame in entries]
    report.frames = {split: len(entries) for split, entries in by_split.items()}
    report.timesteps = len({f.timestep_index for f in frames})
    report.cameras = len({f.camera_index for f in frames})
    report.sizes = sorted({(f.width, f.height) for f in frames})
    report.decoded_bytes = sum(f.width * f.height * 3 for f in {f.image: f for f in frames}.values())
    check_frames(report, by_split)
    check_images(report, frames, thorough, progress)
    check_head(report, frames, heads, flame_model, progress)
    check_content(report, frames, heads, flame_model, progress)
    return report


def _read_split(report: CaptureReport, split: str, heads: set[str]) -> list[FrameEntry]:
    path = transforms_path(report.folder, split)
    try:
        content = read_transforms(path)
    except (ValueError, FileNotFoundError) as error:
        where, what = str(path), str(error).removeprefix(str(path)).lstrip(": ")
        report.problems.append(Problem("Frames", where, what, missing=isinstance(error, FileNotFoundError)))
        return []
    if isinstance(content.get("head"), str):
        heads.add(content["head"])
    frames = []
    for frame in each_frame(content, path):
        if isinstance(frame, UserError):
            what = str(frame).removeprefix(f"{path}: ")
            report.problems.append(Problem("Frames", str(path), what))
        else:
            frames.append(frame)
    if split == "train" and not content["frames"]:
        report.problems.append(Problem("Frames", str(path), "lists no frames: there is nothing to train on"))
    return frames
