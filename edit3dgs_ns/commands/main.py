"""The `edit3dgs` command: what Nerfstudio has no command for.

Everything heavy is imported inside the command that needs it, so that `edit3dgs --help` answers at once.
A mistake of the user (a `UserError`, with what was found and what to do) is shown as one message and ends with exit code 2.
Anything else is a bug and keeps its traceback.
"""

import signal
import sys
from pathlib import Path

import tyro

from edit3dgs_ns.commands.avatar_files import export_command, import_command
from edit3dgs_ns.commands.derive import derive_command
from edit3dgs_ns.commands.evaluate import evaluate_command
from edit3dgs_ns.commands.history import history_command
from edit3dgs_ns.commands.videos import interpolate_command, orbit_command, reenact_command
from edit3dgs_ns.console import print_error
from edit3dgs_ns.errors import UserError

USER_ERROR_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130

app = tyro.extras.SubcommandApp()


@app.command
def capture(
    out: tyro.conf.Positional[Path],
    *,
    seed: int = 0,
    resolution: tuple[int, int] = (256, 256),
    cameras: int = 16,
    frames: int = 24,
    samples: int = 6,
    workers: int = 0,
    overwrite: bool = False,
) -> int:
    """Write a synthetic multi-view capture of a talking head, laid out like a NeRSemble capture.

    The head is ray traced from the embedded open head. The same command always writes the same files.

    Args:
        out: Folder to write. Each sequence gets a folder of its own in it, next to the combined data set.
        seed: Which person. Every number gives another face, skin, hair and way of moving.
        resolution: Width and height of the images in pixels.
        cameras: How many cameras stand in front of the head (NeRSemble has 16).
        frames: How many timesteps each sequence has.
        samples: Rays through each pixel: more is smoother and slower.
        workers: Processes that render; 0 is one per core.
        overwrite: Replace a capture of other settings in this folder.
    """
    from edit3dgs_ns.console import CONSOLE
    from edit3dgs_ns.synthetic.writer import write_capture

    width, height = resolution
    data = write_capture(
        out,
        seed=seed,
        width=width,
        height=height,
        cameras=cameras,
        frames=frames,
        samples=samples,
        workers=workers or None,
        overwrite=overwrite,
    )
    CONSOLE.print(f"The capture is in [bold]{data}[/bold]. Train an avatar on it with", soft_wrap=True)
    CONSOLE.print(
        f"  ns-train rigged-splatfacto-fast nersemble-data --data {data}", highlight=False, soft_wrap=True
    )
    return 0


@app.command
def doctor(*, data: Path | None = None, thorough: bool = False, json: bool = False) -> int:
    """Say what this machine has, or what is wrong with a capture, and what to do about it.

    Exit code 0 when the job of `make demo` can run here (with --data: when a training can use the capture), 1 otherwise.

    Args:
        data: Check this capture instead of the machine: every file that it names, in seconds.
        thorough: With --data: decode every image, instead of looking at the first and last bytes of each.
        json: Print the findings as JSON, for scripts and bug reports.
    """
    if data is not None:
        from edit3dgs_ns.commands.capture_doctor import main as check_data

        return check_data(data, thorough=thorough, as_json=json)
    if thorough:
        raise UserError("--thorough goes with --data DIR: it decodes every image of a capture.")
    from edit3dgs_ns.commands.machine_doctor import main as run_doctor

    return run_doctor(as_json=json)


@app.command
def demo(
    out: tyro.conf.Positional[Path] = Path("outputs/demo"),
    *,
    prompt: str = "Make him look older",
    seed: int = 12,
    tiny: bool = False,
) -> int:
    """The whole way: capture a head, train its avatar, edit it with a sentence, show the result.

    Finished steps are kept: a second run reuses what is there, a broken-off run goes on.

    Args:
        out: Folder for everything that the demo makes.
        prompt: The edit. The embedded demo editor knows a few; the README lists them.
        seed: Which person the capture shows.
        tiny: A run of a minute with tiny images and hardly any training: it shows that everything works
            together, and nothing else.
    """
    from edit3dgs_ns.commands.demo import DemoSettings, run_demo

    settings = DemoSettings.tiny() if tiny else DemoSettings()
    settings = settings.with_options(prompt=prompt, seed=seed)
    return run_demo(settings, out)


app.command(name="import")(import_command)
app.command(name="export")(export_command)
app.command(name="evaluate")(evaluate_command)
app.command(name="reenact")(reenact_command)
app.command(name="orbit")(orbit_command)
app.command(name="interpolate")(interpolate_command)
app.command(name="derive")(derive_command)
app.command(name="history")(history_command)


def main() -> None:
    """Entry point of the console script."""
    # `kill` ends us like Ctrl-C does, so that a training that we started does not go on alone.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(sys.argv[1:]))


def run(args: list[str]) -> int:
    """Run one command line and return its exit code; user errors become one message on stderr."""
    try:
        result = app.cli(
            args=args,
            prog="edit3dgs",
            description="Edit 3D Gaussian head avatars with words.",
            config=(tyro.conf.FlagCreatePairsOff,),
        )
    except KeyboardInterrupt:
        print_error("Stopped. The same command goes on from here.")
        return INTERRUPTED_EXIT_CODE
    except UserError as error:
        print_error(str(error))
        return USER_ERROR_EXIT_CODE
    return int(result or 0)


if __name__ == "__main__":
    main()
