"""The command `edit3dgs import`: an avatar of GaussianAvatars as a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from edit3dgs_ns.commands.options import check_there
from edit3dgs_ns.console import progress_bars, say, say_command, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.avatar_folder import find_avatar


@dataclass(kw_only=True)
class ImportCommand:
    """Turn an avatar of GaussianAvatars into a run that ns-viewer, ns-render, ns-export and `ns-train edit3dgs` take."""

    avatar: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="AVATAR")]
    """Folder with point_cloud.ply and flame_param.npz, or an output folder of GaussianAvatars (then its last iteration)."""
    flame_model: Path | None = None
    """FLAME's file, or the ZIP it is downloaded in. Default: the environment's FLAME_MODEL_PATH. Avatars of the embedded
    open head need none."""
    data: Path | None = None
    """The capture that the avatar was trained on. Without it, views of the avatar are rendered and stand in for one."""
    output_dir: Path = Path("outputs")
    """Where the run goes: OUTPUT_DIR/NAME/rigged-splatfacto/DATE."""
    name: str | None = None
    """Name of the run. Default: that of the avatar's folder."""
    cameras: int | None = None
    """Without --data: cameras that are rendered, 1 to 16 (default 8)."""
    timesteps: int | None = None
    """Without --data: timesteps that are rendered from all cameras (default 8)."""
    resolution: tuple[int, int] | None = None
    """Without --data: width and height of the views in pixels (default 512 512)."""

    def execute(self) -> int:
        """Makes the run and prints commands that show and edit it."""
        views = {"cameras": self.cameras, "timesteps": self.timesteps, "resolution": self.resolution}
        views = {option: value for option, value in views.items() if value is not None}
        if self.data is not None and views:
            options = ", ".join(f"--{option}" for option in views)
            raise UserError(f"{options}: with --data nothing is rendered. Leave one of them out.")
        if self.resolution is not None and not all(16 <= side <= 8192 for side in self.resolution):
            raise UserError(
                f"--resolution {self.resolution[0]} {self.resolution[1]}: expected 16 to 8192 pixels a side."
            )
        for option, value, most in (("cameras", self.cameras, 16), ("timesteps", self.timesteps, 10_000)):
            if value is not None and not 1 <= value <= most:
                raise UserError(f"--{option} {value}: expected a whole number from 1 to {most}.")
        check_there("AVATAR", self.avatar, "Expected a folder with point_cloud.ply and flame_param.npz.")
        find_avatar(self.avatar)
        check_there(
            "--flame-model", self.flame_model, "Expected FLAME's file, or the ZIP it is downloaded in."
        )
        if self.data is not None:
            from edit3dgs_ns.capture.transforms import find_capture

            find_capture(self.data)
        with progress_bars() as progress:
            with working(progress, "Loading PyTorch and Nerfstudio"):
                from edit3dgs_ns.capture.from_avatar import ViewSettings
                from edit3dgs_ns.runs.importing import import_avatar

            config = import_avatar(
                self.avatar,
                flame_model=self.flame_model,
                data=self.data,
                output_dir=self.output_dir,
                name=self.name,
                views=ViewSettings(**views),  # type: ignore[arg-type]
                progress=progress,
            )
        self._print_commands(config)
        return 0

    def _print_commands(self, config: Path) -> None:
        run = config.parent
        data = run / "imported" if self.data is None else self.data
        say(f"The run is in {run}. Look at it, or edit it:")
        say_command("ns-viewer", "--load-config", config)
        words = ["ns-train", "edit3dgs", "--prompt", "Make him look older"]
        words += ["--experiment-name", run.parents[1].name, "--pipeline.avatar", str(run)]
        words += ["nersemble-data", "--data", str(data)]
        if self.flame_model is not None:
            words += ["--flame-model", str(self.flame_model)]
        say_command(*words)
