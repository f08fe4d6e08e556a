"""The commands `edit3dgs import` and `edit3dgs export`: their options, and what they print."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro


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
    """Turn an avatar of GaussianAvatars into a run that ns-viewer, ns-render, ns-export and `ns-train edit3dgs` take.

    Args:
        avatar: Folder with point_cloud.ply and flame_param.npz, or an output folder of GaussianAvatars (then its last
            iteration).
        flame_model: FLAME's file, with FLAME_masks.pkl beside it for the teeth. Default: the environment's
            FLAME_MODEL_PATH. Avatars of the embedded open head need none.
        data: The capture that the avatar was trained on. Without it, views of the avatar are rendered and stand in for one.
        output_dir: Where the run goes: OUTPUT_DIR/NAME/rigged-splatfacto/DATE.
        name: Name of the run. Default: that of the avatar's folder.
        cameras: Without --data: cameras that are rendered, 1 to 16 (default 8).
        timesteps: Without --data: timesteps that are rendered from all cameras (default 8).
        resolution: Without --data: width and height of the views in pixels (default 512 512).
    """
    from edit3dgs_ns.avatar_import import import_avatar
    from edit3dgs_ns.capture.from_avatar import ViewSettings
    from edit3dgs_ns.console import CONSOLE

    chosen = {"cameras": cameras, "timesteps": timesteps, "resolution": resolution}
    chosen = {option: value for option, value in chosen.items() if value is not None}
    if data is not None and chosen:
        options = ", ".join(f"--{option}" for option in chosen)
        raise ValueError(f"{options}: with --data nothing is rendered. Leave one of them out.")
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
    format: Literal["gaussian-avatars", "ply"] = "gaussian-avatars",
    timestep: int | None = None,
    time: float | None = None,
    overwrite: bool = False,
) -> int:
    """Write the avatar of a run for other programs.

    Args:
        load_config: The run's config.yml.
        output: Folder that the files go to.
        format: `gaussian-avatars`: point_cloud.ply and flame_param.npz, the avatar with all of its motion, as
            GaussianAvatars saves it; an avatar that was imported and not changed comes out bit for bit. `ply`: splat.ply,
            one moment as an ordinary splat that any viewer of Gaussians shows.
        timestep: For ply: the moment, as a timestep of the motion, counted from 0.
        time: For ply: the moment, from 0 (start of the motion) to 1 (its end).
        overwrite: Replace files that are there.
    """
    from edit3dgs_ns.avatar_export import export_pair, export_splat
    from edit3dgs_ns.console import CONSOLE

    if format == "gaussian-avatars":
        if timestep is not None or time is not None:
            raise ValueError(
                "--timestep and --time choose a moment for --format ply; gaussian-avatars holds the whole motion."
            )
        paths, left_out = export_pair(load_config, output, overwrite)
        for what in left_out:
            CONSOLE.print(
                f"[bold yellow]Warning:[/bold yellow] the files do not hold the avatar's {what}: the format has no place for it."
            )
    else:
        paths = export_splat(load_config, output, timestep, time, overwrite)
    for path in paths:
        CONSOLE.print(f"Wrote {path}", highlight=False, soft_wrap=True)
    return 0
