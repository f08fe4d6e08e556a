"""`edit3dgs export --format html`: the avatar of a run as a web page with the rig in it."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image
from rich.progress import Progress

from edit3dgs_ns.capture.driver import Driver, Part
from edit3dgs_ns.console import shown_on, working
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.flame.known_motions import KNOWN_FORMATS
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.rendering.web_scene import before_edits, web_scene
from edit3dgs_ns.runs.thinning import Thinned, thin
from edit3dgs_ns.runs.trained_run import TrainedRun, moved_camera
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.tracking.driving import drive, open_driver
from edit3dgs_ns.web.page import check_stream, render_page

PAGE_NAME = "avatar.html"
LARGE = 30e6
"""Bytes: a page above this is slow to send and to open."""
_USUAL_FPS = 25.0
_POSTER_HEIGHT = 480
"""Pixels."""


@dataclass(frozen=True)
class WebPage:
    """What was written."""

    path: Path
    size: int
    """Bytes."""
    frames: int
    gaussians: int
    notes: tuple[str, ...] = ()
    """What was mapped to what, for the user."""


def export_page(
    load_config: Path,
    output: Path,
    *,
    motion: Path | None = None,
    motion_part: Part = "all",
    fps: float | None = None,
    degrees: float | None = None,
    before: bool = True,
    title: str | None = None,
    stream: str | None = None,
    webcam: bool = False,
    max_gaussians: int | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> WebPage:
    """Writes one page with everything in it: avatar, rig, motion, viewer. It opens from a disk and asks nothing of any network.

    The page poses the head as `flame.model` does and draws what the model draws: all degrees of the spherical harmonics, light
    on turning faces, offsets that follow the expression; numbers are stored in the steps of `web.scene.STEPS`.

    Args:
        load_config: the run's config.yml.
        output: a folder, or a file that ends in .html.
        motion: what to play, as `open_driver` reads it; None: the run's own motion.
        motion_part: of a capture: the timesteps of a split.
        fps: frames per second of the motion; None: what its file says, else 25.
        degrees: how far the page can be turned, 360 is around; None: as far as the capture's cameras stand, and a little beyond.
        before: put the avatar from before its edits into the page, too, for the wipe.
        title: over the page; None: the experiment's name.
        stream: address of a WebSocket whose ARKit coefficients move the face, live.
        webcam: put in a face tracker, so that a visitor's own face moves the avatar's.
        max_gaussians: keep the most important ones, see `runs.thinning`.
        overwrite: replace a page that is there.
        progress: shows how far it is.

    Raises:
        FileNotFoundError, ValueError: something is missing, damaged or does not fit; before anything is written.
        FileExistsError: the page is there already.
    """
    path = page_path(output)
    _check_path(path, overwrite)
    _check_options(motion, motion_part, fps, degrees)
    if stream is not None:
        check_stream(stream)
    with working(progress, f"Opening {load_config.parent}"):
        run = TrainedRun(load_config)
    recorded_fps: float | None = None
    notes: tuple[str, ...] = ()
    if motion is not None:
        driver = open_driver(motion, run.head, motion_part, shown_on(progress))
        recorded_fps, notes = driver.recorded.fps, _play(run, driver)
    thinned: Thinned | None = None
    if max_gaussians is not None:
        with working(progress, "Choosing Gaussians"):
            thinned = thin(run, max_gaussians)
        notes = (*notes, str(thinned))
    with working(progress, "Packing the page"):
        former, why_not = _former(run, load_config, thinned) if before else (None, ())
        scene = web_scene(run, fps or recorded_fps or _USUAL_FPS, degrees, former)
        page = render_page(
            scene.centred().packed(),
            *_words(load_config, title),
            poster=_poster(run),
            stream=stream,
            webcam=webcam,
        ).encode()
        write_atomically(path, page)
    if (stream is not None or webcam) and not len(scene.rig.action_expr):
        notes = (
            *notes,
            "On this head no points of a face are known: --stream and --webcam turn its eyes and neck alone.",
        )
    return WebPage(path, len(page), len(scene.motion), len(scene.gaussians.binding), (*notes, *why_not))


def page_path(output: Path) -> Path:
    """The file that `--output` means."""
    return output if output.suffix.lower() in (".html", ".htm") else output / PAGE_NAME


def _play(run: TrainedRun, driver: Driver) -> tuple[str, ...]:
    played, notes = drive(driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head)
    run.play(played)
    return (*driver.recorded.notes, *notes)


def _former(
    run: TrainedRun, load_config: Path, thinned: Thinned | None
) -> tuple[RiggedGaussians | None, tuple[str, ...]]:
    """The avatar before its edits, with the Gaussians that were kept; and what to tell the user."""
    former = before_edits(load_config, run.head)
    if former is None or thinned is None:
        return former, ()
    if len(former.binding) != thinned.count:
        return None, (
            "The page has no wipe to before the edit: --max-gaussians chose among other Gaussians.",
        )
    params = {name: value[thinned.rows] for name, value in former.params.items()}
    return replace(former, params=params, binding=former.binding[thinned.rows]), ()


def _poster(run: TrainedRun) -> bytes:
    """The first frame from the front, as a JPEG, for the time that a browser takes to load the page."""
    front = front_camera(run)
    camera = moved_camera(front, time=0.0, scale=min(1.0, _POSTER_HEIGHT / int(front.height[0])))
    image = Image.fromarray((255 * run.render(camera).rgb).round().astype("uint8"))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return file.getvalue()


def _words(load_config: Path, title: str | None) -> tuple[str, str]:
    """Title, by default the experiment's name (EXPERIMENT/METHOD/DATE/config.yml), and as caption the prompts of all edits."""
    config = Path(os.path.abspath(load_config.expanduser()))
    history = RunHistory(config.parent)
    prompts = [version.prompt for version in history.chain(history.current.number)]
    parents = config.parents
    name = parents[2].name if len(parents) > 3 else parents[0].name
    return title or name, " · ".join(f"“{prompt}”" for prompt in prompts if prompt)


def _check_path(path: Path, overwrite: bool) -> None:
    if path.is_dir():
        raise UserError(f"--output {path} is a folder. Give the name of a page, or of another folder.")
    if path.exists() and not overwrite:
        raise ExistingFileError(f"{path} is there already. Give another --output, or --overwrite.")


def _check_options(motion: Path | None, motion_part: Part, fps: float | None, degrees: float | None) -> None:
    """What can be said without loading anything."""
    if motion is not None and not Path(motion).expanduser().exists():
        raise MissingFileError(f"--motion {motion}: no such file or folder. {KNOWN_FORMATS}")
    if motion is None and motion_part != "all":
        raise UserError(
            f"--motion-part {motion_part}: a part of what? Name the capture by --motion, or leave it out."
        )
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f"--fps {fps}: expected a positive number.")
    if degrees is not None and not 1 <= degrees <= 360:
        raise UserError(f"--degrees {degrees}: expected an angle from 1 to 360.")
