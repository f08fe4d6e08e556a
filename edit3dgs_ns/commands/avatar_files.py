"""The commands `edit3dgs import` and `edit3dgs export`: their options, and what they print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import tyro

from edit3dgs_ns.errors import UserError


def import_command(
    avatar: tyro.conf.Positional[Path],
    *,
    flame_model: Path | None = None,
    data: Path | None = None,
    output_dir: Path = Path("outputs"),
    name: str | None = None,
    cameras: int | None = None,
    timesteps: int | None = None,
    resolution: tuple[int, int] | None = None,
) -> int:
    """Turn an avatar of GaussianAvatars into a run that ns-viewer, ns-render, ns-export and `ns-train edit3dgs` trajectory.

    Args:
        avatar: Folder with point_cloud.ply and flame_param.npz, or an output folder of GaussianAvatars (then its last
            iteration).
        flame_model: FLAME's file, or the ZIP it is downloaded in. Default: the environment's
            FLAME_MODEL_PATH. Avatars of the embedded open head need none.
        data: The capture that the avatar was trained on. Without it, views of the avatar are rendered and stand in for one.
        output_dir: Where the run goes: OUTPUT_DIR/NAME/rigged-splatfacto/DATE.
        name: Name of the run. Default: that of the avatar's folder.
        cameras: Without --data: cameras that are rendered, 1 to 16 (default 8).
        timesteps: Without --data: timesteps that are rendered from all cameras (default 8).
        resolution: Without --data: width and height of the views in pixels (default 512 512).
    """
    from edit3dgs_ns.capture.from_avatar import ViewSettings
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.runs.importing import import_avatar

    chosen = {"cameras": cameras, "timesteps": timesteps, "resolution": resolution}
    chosen = {option: value for option, value in chosen.items() if value is not None}
    if data is not None and chosen:
        options = ", ".join(f"--{option}" for option in chosen)
        raise UserError(f"{options}: with --data nothing is rendered. Leave one of them out.")
    config = import_avatar(
        avatar,
        flame_model=flame_model,
        data=data,
        output_dir=output_dir,
        name=name,
        views=ViewSettings(**chosen),  # type: ignore[arg-type]
    )
    capture = config.parent / "imported" if data is None else data
    CONSOLE.print(f"The run is in [bold]{config.parent}[/bold]. Look at it, or edit it:", soft_wrap=True)
    for line in (
        f"ns-viewer --load-config {config}",
        f'ns-train edit3dgs --prompt "Make him look older" --experiment-name {config.parents[2].name} '
        f"--pipeline.avatar {config.parent} nersemble-data --data {capture}"
        + (f" --flame-model {flame_model}" if flame_model is not None else ""),
    ):
        CONSOLE.print(f"  {line}", highlight=False, soft_wrap=True)
    return 0


def export_command(
    *,
    load_config: Path,
    output: Path,
    format: Literal["gaussian-avatars", "ply", "html"] = "gaussian-avatars",
    timestep: int | None = None,
    time: float | None = None,
    motion: Path | None = None,
    motion_part: Literal["all", "train", "val", "test"] = "all",
    fps: float | None = None,
    stride: int = 1,
    degrees: float | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> int:
    """Write the avatar of a run for other programs, or as a web page that plays it.

    Args:
        load_config: The run's config.yml.
        output: Folder that the files go to; for html also the name of the page, such as avatar.html.
        format: `gaussian-avatars`: point_cloud.ply and flame_param.npz, the avatar with all of its motion, as
            GaussianAvatars saves it; an avatar that was imported and not changed comes out bit for bit. `ply`: splat.ply,
            one moment as an ordinary splat that any viewer of Gaussians shows. `html`: avatar.html, one page with everything
            in it, which plays the avatar in a browser, without a server or a network.
        timestep: For ply: the moment, as a timestep of the motion, counted from 0.
        time: For ply: the moment, from 0 (start of the motion) to 1 (its end).
        motion: For html: what to play instead of the avatar's own motion; whatever `edit3dgs reenact --motion` takes.
            With other options of `reenact` (head pose, smoothing, ...) give the run that it has made as --load-config.
        motion_part: For html, of a capture given by --motion: only the timesteps of this split.
        fps: For html: frames per second of the motion. Default: what its file says, else 25.
        stride: For html: keep every so many frames of the motion, for a smaller page; between them heads move straight.
        degrees: For html: how far the page can be turned; 360 is around. Default: as far as the capture's cameras stand;
            behind them the avatar has learnt nothing.
        title: For html: stands over the page. Default: the experiment's name.
        overwrite: Replace files that are there.
    """
    from edit3dgs_ns.console import CONSOLE

    html = {
        "motion": motion,
        "motion_part": None if motion_part == "all" else motion_part,
        "fps": fps,
        "stride": None if stride == 1 else stride,
        "degrees": degrees,
        "title": title,
    }
    _refuse_others(format, {"ply": {"timestep": timestep, "time": time}, "html": html})
    if format == "html":
        given = {name: value for name, value in html.items() if value is not None}
        paths = [_export_page(load_config, output, overwrite, given)]
    elif format == "ply":
        from edit3dgs_ns.runs.exporting import export_splat

        paths = export_splat(load_config, output, timestep, time, overwrite)
    else:
        paths = _export_pair(load_config, output, overwrite)
    for path in paths:
        CONSOLE.print(f"Wrote {path}", highlight=False, soft_wrap=True, markup=False)
    return 0


def _refuse_others(format: str, options: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises a ValueError for options, by the format that they are for, that were given with another format."""
    for other, values in options.items():
        given = [f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None]
        if other != format and given:
            raise UserError(
                f"{', '.join(given)}: only for --format {other}, but this is --format {format}. Leave it out, or change the format."
            )


def _export_pair(load_config: Path, output: Path, overwrite: bool) -> list[Path]:
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.runs.exporting import export_pair

    paths, left_out = export_pair(load_config, output, overwrite)
    for what in left_out:
        CONSOLE.print(
            f"[bold yellow]Warning:[/bold yellow] the files do not hold the avatar's {what}: the format has no place for it."
        )
    return paths


def _export_page(load_config: Path, output: Path, overwrite: bool, options: Mapping[str, Any]) -> Path:
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.rendering.web_page import LARGE, export_page

    page = export_page(load_config, output, overwrite=overwrite, **options)
    for note in page.notes:
        CONSOLE.print(note, highlight=False, soft_wrap=True, markup=False)
    CONSOLE.print(
        f"{page.gaussians} Gaussians, {page.frames} frames, {page.size / 1e6:.1f} MB", highlight=False
    )
    if page.size > LARGE:
        CONSOLE.print(
            f"[bold yellow]Warning:[/bold yellow] a page of more than {LARGE / 1e6:.0f} MB is slow to send and to open. Keep "
            "fewer frames (--stride 2, or a shorter --motion); an avatar with fewer Gaussians helps too.",
            soft_wrap=True,
        )
    return page.path
