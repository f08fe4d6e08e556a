"""The command `edit3dgs derive`: an avatar at one timestep or in a scene, as a run for commands of Nerfstudio that know neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edit3dgs_ns.commands.options import NO_SCENE, InScene, check_scene, check_time
from edit3dgs_ns.console import progress_bars, say, say_command, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.run_files import find_config


@dataclass(kw_only=True)
class DeriveCommand:
    """Make a run of an avatar that stands still at one timestep, or in a scene, for ns-viewer, ns-render and ns-export.

    It lies beside the avatar's own run, which stays as it is. `edit3dgs reenact` makes runs that play another motion.
    """

    load_config: Path
    """The avatar's config.yml, or that of a run that `edit3dgs reenact` has made."""
    timestep: int | None = None
    """Stand still at this timestep of the motion, counted from 0. `ns-export gaussian-splat` then exports it."""
    time: float | None = None
    """The same as a normalised time, from 0 (start of the motion) to 1 (its end)."""
    run_name: str | None = None
    """End of the new run's name. Default: the timestep, or the scene's name."""
    overwrite: bool = False
    """Replace a run of this name that an earlier command has made."""
    scene: InScene = NO_SCENE
    """The scene around the avatar."""

    def execute(self) -> int:
        """Writes the run and prints commands that show it."""
        if self.timestep is None and self.time is None and self.scene.background is None:
            raise UserError("Say what the new run is to show: --timestep or --time, or --background.")
        check_time(self.timestep, self.time)
        load_config = find_config(self.load_config)
        check_scene(self.scene)
        with progress_bars() as progress, working(progress, "Writing the run"):
            from edit3dgs_ns.runs.standing import derive_run

            config = derive_run(
                load_config, self.timestep, self.time, self.scene, self.run_name, overwrite=self.overwrite
            )
        say("Made the run")
        say_command("ns-viewer", "--load-config", config)
        say_command("ns-render", "dataset", "--split", "val", "--load-config", config)
        say_command("ns-export", "gaussian-splat", "--output-dir", "DIR", "--load-config", config)
        return 0
