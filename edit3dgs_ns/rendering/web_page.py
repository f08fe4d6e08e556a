"""`edit3dgs export --format html`: the avatar of a run as a web page that plays a motion."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import Progress

from edit3dgs_ns.capture.driver import Driver, Part
from edit3dgs_ns.console import shown_on, working
from edit3dgs_ns.edit_training.versions import RunHistory
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.files import write_atomically
from edit3dgs_ns.flame.known_motions import KNOWN_FORMATS
from edit3dgs_ns.rendering.trajectories import head_centre, seen_degrees
from edit3dgs_ns.rendering.views import front_camera
from edit3dgs_ns.runs.thinning import thin
from edit3dgs_ns.runs.trained_run import TrainedRun, pose_matrices
from edit3dgs_ns.splats.motion_code import motion_code, motion_features
from edit3dgs_ns.splats.ply import MIN_LOG_SCALE
from edit3dgs_ns.tracking.driving import drive, open_driver
from edit3dgs_ns.web.page import render_page
from edit3dgs_ns.web.scene import WebCamera, WebGaussians, WebScene

PAGE_NAME = "avatar.html"
LARGE = 30e6
"""Bytes: a page above this is slow to send and to open."""
_USUAL_FPS = 25.0
_BEYOND = 5.0
"""Degrees that the page can be turned beyond the capture's cameras."""
_BATCH = 32
"""Frames that are posed at once."""


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
    stride: int = 1,
    degrees: float | None = None,
    title: str | None = None,
    max_gaussians: int | None = None,
    overwrite: bool = False,
    progress: Progress,
) -> WebPage:
    """Writes one page with everything in it: avatar, motion, viewer. It opens from a disk and asks nothing of any network.

    The page draws what the model does: all degrees of the spherical harmonics, light on turning faces, offsets that follow
    the expression; numbers are stored in the steps of `web.scene.STEPS`.

    Args:
        load_config: the run's config.yml.
        output: a folder, or a file that ends in .html.
        motion: what to play, as `open_driver` reads it; None: the run's own motion.
        motion_part: of a capture: the timesteps of a split.
        fps: frames per second of the motion; None: what its file says, else 25.
        stride: keep every so many frames.
        degrees: how far the page can be turned, 360 is around; None: as far as the capture's cameras stand, and a little beyond.
        title: over the page; None: the experiment's name.
        max_gaussians: keep the most important ones, see `runs.thinning`.
        overwrite: replace a page that is there.
        progress: shows how far it is.

    Raises:
        FileNotFoundError, ValueError: something is missing, damaged or does not fit; before anything is written.
        FileExistsError: the page is there already.
    """
    path = page_path(output)
    _check_path(path, overwrite)
    _check_options(motion, motion_part, fps, stride, degrees)
    with working(progress, f"Opening {load_config.parent}"):
        run = TrainedRun(load_config)
    recorded_fps: float | None = None
    notes: tuple[str, ...] = ()
    if motion is not None:
        driver = open_driver(motion, run.head, motion_part, shown_on(progress))
        recorded_fps, notes = driver.recorded.fps, _play(run, driver)
    if max_gaussians is not None:
        with working(progress, "Choosing Gaussians"):
            notes = (*notes, str(thin(run, max_gaussians)))
    rate = (fps or recorded_fps or _USUAL_FPS) / stride
    scene = web_scene(run, rate, stride, degrees, progress)
    with working(progress, "Packing the page"):
        page = render_page(scene.centred().packed(), *_words(load_config, title)).encode()
        write_atomically(path, page)
    return WebPage(path, len(page), len(scene.vertices), len(scene.gaussians.binding), notes)


def page_path(output: Path) -> Path:
    """The file that `--output` means."""
    return output if output.suffix.lower() in (".html", ".htm") else output / PAGE_NAME


@torch.no_grad()
def web_scene(
    run: TrainedRun,
    fps: float,
    stride: int = 1,
    degrees: float | None = None,
    progress: Progress | None = None,
) -> WebScene:
    """What a page shows of a run, going through the motion that it plays; see `export_page`."""
    model = run.pipeline.model
    head = model.head
    timesteps = torch.arange(0, head.num_timesteps, stride, device=head.shape.device)
    batches = timesteps.split(_BATCH)
    steps = batches if progress is None else progress.track(batches, description="Posing the head")
    vertices = np.concatenate([head.vertices(batch).cpu().numpy() for batch in steps])
    rest = head.rest_frames().rotation[..., 1]
    return WebScene(
        gaussians=_gaussians(model),
        faces=head.faces.cpu().numpy(),
        vertices=vertices.astype(np.float64),
        rest_normals=_numpy(rest),
        codes=_codes(model, timesteps.tolist()),
        light=_numpy(model.appearance.light),
        camera=_camera(run, degrees),
        fps=fps,
        antialiased=model.config.rasterize_mode == "antialiased",
    )


def _gaussians(model: Any) -> WebGaussians:
    params = model.gauss_params
    count, rank = len(params["means"]), _rank(model)
    none = torch.zeros(count, 0, 3)
    # No scale under MIN_LOG_SCALE on the head at rest; a collapsed triangle keeps its Gaussians small.
    sizes = model.head.rest_frames().size[model.binding].clamp_min(1e-5)
    return WebGaussians(
        binding=model.binding.cpu().numpy(),
        means=_numpy(params["means"]),
        quats=_numpy(params["quats"]),
        scales=_numpy(params["scales"].maximum((MIN_LOG_SCALE - sizes.log())[:, None])),
        opacities=_numpy(torch.sigmoid(params["opacities"][:, 0])),
        colors=_numpy(model.colors_in_use()),
        mean_offsets=_numpy(params["expression_means"] if rank else none),
        color_offsets=_numpy(params["expression_colors"] if rank else none),
    )


def _rank(model: Any) -> int:
    return model.appearance.rank if "expression_means" in model.gauss_params else 0


def _codes(model: Any, timesteps: list[int]) -> Float[np.ndarray, "frames rank"]:
    appearance, last = model.appearance, max(model.head.num_timesteps - 1, 1)
    if not _rank(model):
        return np.zeros((len(timesteps), 0))
    features = [motion_features(model.head.pose_at(step / last))[0] for step in timesteps]
    return np.stack(
        [_numpy(motion_code(row, appearance.code_mean, appearance.code_basis)) for row in features]
    )


def _camera(run: TrainedRun, degrees: float | None) -> WebCamera:
    """The camera in front, turning about the point on its axis that is nearest to the middle of the head."""
    front = front_camera(run)
    c2w = pose_matrices(front)[0]
    position, ahead = c2w[:3, 3], -c2w[:3, 2]
    distance = max(float((head_centre(run) - position) @ ahead), 0.05)
    half = float(front.width[0]) / (2 * float(front.fx[0])), float(front.height[0]) / (2 * float(front.fy[0]))
    target = position + distance * ahead
    aside = (seen_degrees(run, c2w, target) if degrees is None else degrees) / 2
    upwards = 90.0 if degrees is not None else _seen_upwards(run, target, c2w[:3, 1])
    reach = tuple(
        math.radians(min(angle + (_BEYOND if degrees is None else 0), 180)) for angle in (aside, upwards)
    )
    return WebCamera(position=position, target=target, up=c2w[:3, 1], tangents=half, reach=reach)  # type: ignore[arg-type]


def _seen_upwards(run: TrainedRun, target: Float[np.ndarray, " 3"], up: Float[np.ndarray, " 3"]) -> float:
    """The largest angle of a training camera above or below the front one, degrees."""
    offsets = pose_matrices(run.split("train").cameras)[:, :3, 3] - target
    rise = offsets @ up / np.linalg.norm(offsets, axis=1)
    return math.degrees(math.asin(float(np.abs(rise).max())))


def _play(run: TrainedRun, driver: Driver) -> tuple[str, ...]:
    played, notes = drive(driver.recorded, run.pipeline.model.head.motion().to("cpu"), run.head)
    run.play(played)
    return (*driver.recorded.notes, *notes)


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


def _check_options(
    motion: Path | None, motion_part: Part, fps: float | None, stride: int, degrees: float | None
) -> None:
    """What can be said without loading anything."""
    if motion is not None and not Path(motion).expanduser().exists():
        raise MissingFileError(f"--motion {motion}: no such file or folder. {KNOWN_FORMATS}")
    if motion is None and motion_part != "all":
        raise UserError(
            f"--motion-part {motion_part}: a part of what? Name the capture by --motion, or leave it out."
        )
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise UserError(f"--fps {fps}: expected a positive number.")
    if stride < 1:
        raise UserError(f"--stride {stride}: expected 1 (every frame), 2 (every other one), ...")
    if degrees is not None and not 1 <= degrees <= 360:
        raise UserError(f"--degrees {degrees}: expected an angle from 1 to 360.")


def _numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
