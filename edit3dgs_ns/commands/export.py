"""The command `edit3dgs export`: the avatar of a run as files for other programs, or as a web page."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edit3dgs_ns.commands.options import check_motion, check_positive, check_time, check_video
from edit3dgs_ns.console import progress_bars, say, warn, working
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.run_files import EXPORTS, find_config, free_output

if TYPE_CHECKING:
    from rich.progress import Progress

Format = Literal["gaussian-avatars", "ply", "spz", "sog", "glb", "html"]
_OF_ONE_TIMESTEP = ("ply", "spz", "sog", "glb")
_FILES: dict[str, tuple[str, ...]] = {
    "gaussian-avatars": ("point_cloud.ply", "flame_param.npz"),
    "ply": ("splat.ply",),
    "spz": ("splat.spz",),
    "sog": ("splat.sog",),
    "glb": ("avatar.glb",),
    "html": ("avatar.html",),
}


@dataclass(kw_only=True)
class ExportCommand:
    """Write the avatar of a run for other programs, or as a web page that plays it."""

    load_config: Path
    """The run's config.yml."""
    output: Path | None = None
    """Folder that the files go to; for html also the name of the page, such as avatar.html. Default: exports/ in the run's
    folder."""
    format: Format = "gaussian-avatars"
    """`gaussian-avatars`: point_cloud.ply and flame_param.npz, the avatar with all of its motion, as GaussianAvatars saves it; an
    avatar that was imported and not changed comes out bit for bit. `ply`: splat.ply, one timestep as an ordinary splat that
    any viewer of Gaussians shows. `spz`, `sog`: the same packed, by PlayCanvas' program splat-transform. `glb`: avatar.glb,
    one timestep as glTF with KHR_gaussian_splatting, and the head's mesh with joints and morph targets as a second scene.
    `html`: avatar.html, one page with everything in it, rig and all, where anybody plays and poses the avatar in a browser,
    without a server or a network."""
    timestep: int | None = None
    """For ply, spz, sog and glb: the timestep of the motion, counted from 0."""
    time: float | None = None
    """For ply, spz, sog and glb: the same as a normalised time, from 0 (start of the motion) to 1 (its end)."""
    y_down: bool = False
    """For ply: turn it half around z, so that y is down as in 3D Gaussian Splatting's own files; editors that take a PLY so
    (SuperSplat, PlayCanvas) then show it upright."""
    motion: Path | None = None
    """For html: what to play instead of the avatar's own motion; whatever `edit3dgs reenact --motion` takes. With other
    options of `reenact` (head pose, smoothing, ...) give the run that it has made as --load-config."""
    motion_part: Literal["all", "train", "val", "test"] = "all"
    """For html, of a capture given by --motion: only the timesteps of this split."""
    fps: float | None = None
    """For html: frames per second of the motion. Default: what its file says, else 25."""
    degrees: float | None = None
    """For html: how far the page can be turned; 360 is around. Default: as far as the capture's cameras stand; behind them
    the avatar has learnt nothing."""
    before: bool = True
    """For html, of an edited avatar: put the avatar from before its edits into the page, too, for a wipe between both."""
    title: str | None = None
    """For html: stands over the page. Default: the experiment's name."""
    stream: str | None = None
    """For html: address of a WebSocket, such as ws://127.0.0.1:8765, whose ARKit coefficients move the face, live. It is the
    only address that the page may ask."""
    webcam: bool = False
    """For html: put a face tracker into the page (7 MB), so that a visitor's own face moves the avatar's; no image leaves the
    page."""
    max_gaussians: int | None = None
    """Keep at most so many Gaussians, the ones that the training views show most of, for a smaller file. What that costs is said
    at the end, in dB against the whole avatar."""
    overwrite: bool = False
    """Replace files that are there."""

    def execute(self) -> int:
        """Writes the files and names them."""
        self._refuse_options_of_other_formats()
        check_time(self.timestep, self.time)
        check_positive(fps=self.fps)
        check_video(fps=self.fps)
        if self.max_gaussians is not None and self.max_gaussians < 1:
            raise UserError(f"--max-gaussians {self.max_gaussians}: expected 1 or more.")
        config = find_config(self.load_config)
        check_motion(self.motion)
        output = config.parent / EXPORTS if self.output is None else self.output.expanduser()
        self._check_output(output)
        with progress_bars() as progress:
            if self.format == "html":
                paths = [self._export_page(config, output, progress)]
            else:
                with working(progress, "Writing the avatar"):
                    paths = self._export_files(config, output)
        for path in paths:
            say(f"Wrote {path}")
        return 0

    def _page_options(self) -> dict[str, Any]:
        """Options for html that were given."""
        options = {
            "motion": self.motion,
            "motion_part": None if self.motion_part == "all" else self.motion_part,
            "fps": self.fps,
            "degrees": self.degrees,
            "before": None if self.before else False,
            "title": self.title,
            "stream": self.stream,
            "webcam": True if self.webcam else None,
        }
        return {name: value for name, value in options.items() if value is not None}

    def _refuse_options_of_other_formats(self) -> None:
        of_moment = [name for name in ("timestep", "time") if getattr(self, name) is not None]
        of_page = list(self._page_options())
        of_ply = ["y_down"] if self.y_down else []
        for formats, names in ((_OF_ONE_TIMESTEP, of_moment), (("html",), of_page), (("ply",), of_ply)):
            if names and self.format not in formats:
                raise UserError(
                    f"{_flags(names)}: only for --format {_either(formats)}, but this is --format {self.format}. Leave it "
                    "out, or change the format."
                )

    def _check_output(self, output: Path) -> None:
        if self.format == "html" and output.suffix.lower() in (".html", ".htm"):
            if output.is_dir():
                raise UserError(
                    f"--output {output} is a folder. Give the name of a page, or of another folder."
                )
            free_output(output, self.overwrite)
            return
        if output.exists() and not output.is_dir():
            raise UserError(f"--output {output} is a file; expected a folder, or a name that is free.")
        for name in _FILES[self.format]:
            free_output(output / name, self.overwrite)

    def _export_files(self, config: Path, output: Path) -> list[Path]:
        from edit3dgs_ns.runs.exporting import export_glb, export_pair, export_splat

        moment = (config, output, self.timestep, self.time, self.overwrite, self.max_gaussians, say)
        if self.format == "ply":
            return export_splat(*moment, y_down=self.y_down)
        if self.format == "glb":
            return export_glb(*moment)
        if self.format in ("spz", "sog"):
            from edit3dgs_ns.runs.packed_splats import export_packed

            return export_packed(self.format, *moment)
        paths, left_out = export_pair(config, output, self.overwrite, self.max_gaussians, say)
        for what in left_out:
            warn(f"the files do not hold the avatar's {what}: the format has no place for it.")
        return paths

    def _export_page(self, config: Path, output: Path, progress: Progress) -> Path:
        with working(progress, "Loading PyTorch and Nerfstudio"):
            from edit3dgs_ns.rendering.web_page import LARGE, export_page

        page = export_page(
            config,
            output,
            max_gaussians=self.max_gaussians,
            overwrite=self.overwrite,
            progress=progress,
            **self._page_options(),
        )
        for note in page.notes:
            say(note)
        say(f"{page.gaussians} Gaussians, {page.frames} frames, {page.size / 1e6:.1f} MB")
        if page.size > LARGE:
            warn(
                f"a page of more than {LARGE / 1e6:.0f} MB is slow to send and to open. Keep fewer Gaussians "
                "(--max-gaussians 40000), or leave out the avatar before its edits (--no-before)."
            )
        return page.path


def _either(formats: tuple[str, ...]) -> str:
    return formats[0] if len(formats) == 1 else f"{', '.join(formats[:-1])} or {formats[-1]}"


def _flags(names: Iterable[str]) -> str:
    return ", ".join("--no-before" if name == "before" else f"--{name.replace('_', '-')}" for name in names)
