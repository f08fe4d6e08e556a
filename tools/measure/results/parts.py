"""What `make results` runs: the commands that a user would run by hand, one part after the other."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edit3dgs_ns.demo.job import newest_step, training_command
from edit3dgs_ns.demo.job_steps import Step, StepRunner
from edit3dgs_ns.demo.settings import BASE_METHOD, CHECKPOINTS, DemoSettings, run_dir
from edit3dgs_ns.editing.diffusion.model_folder import editor_version
from edit3dgs_ns.evaluation.clip_files import DEMO_FOLDER
from tools.measure.code_digest import folder_digest


@dataclass(frozen=True)
class Place:
    """Where things are."""

    root: Path
    """Of the project."""
    out: Path
    """Folder of the results."""

    @property
    def edited(self) -> Path:
        """The demo's edited run."""
        return run_dir(self.out / "demo" / "edit", "edit3dgs")

    @property
    def driver(self) -> Path:
        """A sequence of another actor."""
        return self.out / "driver" / "007_EMO-1"

    def edit_digest(self) -> str:
        """Changes with the demo's edit.

        Raises:
            FileNotFoundError: there is none.
        """
        report = self.out / "demo" / "report.json"
        if not report.is_file():
            raise FileNotFoundError(
                f"{report} is missing: the part demo makes it (--only demo, or all parts)."
            )
        newest = newest_step(self.edited / CHECKPOINTS)
        return f"{editor_version('demo')}-{newest}-{report.stat().st_mtime_ns}"


@dataclass(frozen=True)
class Part:
    """One part."""

    name: str
    title: str
    command: Callable[[Place], list[str]]
    """What to run, in the project's folder."""
    made: tuple[str, ...] = ()
    """Files and folders below the results that it makes as a whole. None: the command itself knows what is done, and is always
    run."""
    depends_on: Callable[[Place], str] = lambda place: ""
    """What the file depends on, besides the command."""


def _digest(path: Path) -> str:
    """Of a file's content; of one that is missing nothing."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12] if path.is_file() else ""


def _code_digest(root: Path) -> str:
    """Of the code that evaluates: a few minutes are cheaper than figures that it would no longer find."""
    files = [
        path
        for folder in ("run_evaluation", "evaluation")
        for path in (root / "edit3dgs_ns" / folder).glob("*.py")
    ]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(files))).hexdigest()[:12]


def _program(name: str) -> str:
    return str(Path(sys.executable).parent / name)


def _python(*words: str) -> list[str]:
    return [sys.executable, *words]


def _out(place: Place, name: str) -> str:
    return str(place.out / name)


def _experiments(
    name: str, *, steps: int, images: int, of_demo: str | None = None
) -> Callable[[Place], list[str]]:
    """Trainings of avatars: all variants on a capture of their own, or one variant on the demo's."""

    def command(place: Place) -> list[str]:
        only = [] if of_demo is None else ["--capture", _out(place, "demo/capture"), "--only", of_demo]
        size = ["--steps", str(steps), "--images", str(images)]
        return _python("-m", "tools.measure.avatar_experiments", *only, *size, "--out", _out(place, name))

    return command


CAPTIONS = ("a photo of the face of a man", "a photo of the face of an old man with wrinkles and grey hair")
"""Before and after the demo's own edit."""
MORE_EDITS = {
    "statue": ("Turn him into a bronze statue", "a photo of a bronze statue of a man"),
    "vampire": ("Make him look like a pale vampire", "a photo of the face of a pale vampire, a man"),
    "blond": ("Give him blond hair", "a photo of the face of a man with blond hair"),
}
"""Other edits of the demo's avatar: sentence, and caption of the result."""


def _edit(name: str, prompt: str, at: Place) -> list[str]:
    """As `edit3dgs demo` edits, with another sentence."""
    flags = DemoSettings(prompt=prompt).flags_of_edit(run_dir(at.out / "demo" / "base", BASE_METHOD))
    words = training_command("edit3dgs", at.out / "edits" / name, at.out / "demo" / "capture", flags)
    return [_program(words[0]), *words[1:]]


def _more_edits() -> tuple[Part, ...]:
    return tuple(
        Part(
            name,
            f"Another edit: “{prompt}”",
            partial(_edit, name, prompt),
            (f"edits/{name}",),
            Place.edit_digest,
        )
        for name, (prompt, _) in MORE_EDITS.items()
    )


def _compare_edits(at: Place) -> list[str]:
    """All edits of the demo's avatar in one table."""
    runs = [at.edited, *(run_dir(at.out / "edits" / name, "edit3dgs") for name in MORE_EDITS)]
    return [
        _program("edit3dgs"), "evaluate", "--overwrite", "--runs", *map(str, runs), "--source-caption", CAPTIONS[0],
        "--target-caption", CAPTIONS[1], *(caption for _, caption in MORE_EDITS.values()), "--clip", "demo",
        "--expression-frames", "3", "--output", _out(at, "evaluation_edits"),
    ]  # fmt: skip


def _evaluated(at: Place) -> str:
    """What an evaluation depends on."""
    return f"{at.edit_digest()}-{_digest(DEMO_FOLDER / 'model.safetensors')}-{_code_digest(at.root)}"


PARTS: tuple[Part, ...] = (
    Part("demo", "The demo: a capture, its avatar, its edit", lambda at: [_program("edit3dgs"), "demo", _out(at, "demo")]),
    Part(
        "editor",
        "The demo's editor on people never trained on",
        lambda at: _python(
            "-m", "tools.data.demo_editor", "evaluate", "--heldout", "32", "--work", _out(at, "demo_editor"),
            "--json", _out(at, "demo_editor.json"),
        ),
        ("demo_editor.json",),
        lambda at: editor_version("demo"),
    ),
    Part(
        "flow_editor",
        "The flow-matching demo editor on the same people",
        lambda at: _python(
            "-m", "tools.data.demo_editor", "evaluate", "--editor", "demo-flow", "--heldout", "32", "--work",
            _out(at, "demo_editor"), "--json", _out(at, "demo_flow_editor.json"),
        ),
        ("demo_flow_editor.json",),
        lambda at: editor_version("demo-flow"),
    ),
    Part(
        "clip",
        "The demo's CLIP on people never trained on",
        lambda at: _python(
            "-m", "tools.data.demo_clip", "evaluate", "--work", _out(at, "demo_clip"), "--json", _out(at, "demo_clip.json")
        ),
        ("demo_clip.json",),
        lambda at: _digest(DEMO_FOLDER / "model.safetensors"),
    ),
    Part(
        "driver",
        "Another actor's motion",
        lambda at: [
            _program("edit3dgs"), "capture", _out(at, "driver"), "--seed", "7", "--resolution", "64", "64", "--cameras", "2",
            "--samples", "1",
        ],
        ("driver",),
    ),
    Part(
        "evaluate",
        "The demo's edit, measured",
        lambda at: [
            _program("edit3dgs"), "evaluate", "--overwrite", "--load-config", str(at.edited / "config.yml"), "--source-caption",
            CAPTIONS[0], "--target-caption", CAPTIONS[1], "--clip", "demo", "--motion", str(at.driver), "--output",
            _out(at, "evaluation"),
        ],
        ("evaluation",),
        _evaluated,
    ),
    *_more_edits(),
    Part("compare", "Several edits, measured side by side", _compare_edits, ("evaluation_edits",), _evaluated),
    Part("ablation", "Edits that agree", lambda at: _python("-m", "tools.measure.ablation", "--out", _out(at, "ablation"))),
    Part(
        "ablation_flow",
        "Edits that agree, by a flow-matching transformer",
        lambda at: _python("-m", "tools.measure.ablation", "--only", "flow", "--out", _out(at, "ablation_flow")),
    ),
    Part(
        "length",
        "A capture four times as long",
        lambda at: _python("-m", "tools.measure.ablation", "--only", "length", "--out", _out(at, "ablation")),
    ),
    Part(
        "afterwards",
        "Views of editors that show no predictions",
        lambda at: _python("-m", "tools.measure.ablation", "--only", "afterwards", "--out", _out(at, "ablation")),
    ),
    Part(
        "judge",
        "Bad edited views among good ones",
        lambda at: _python("-m", "tools.measure.judge", "--out", _out(at, "judge.json")),
        ("judge.json",),
        lambda at: f"{editor_version('demo')}-{folder_digest(at.root / 'edit3dgs_ns' / 'editing' / 'judging')}",
    ),
    Part(
        "ray",
        "Edits in two Ray actors",
        lambda at: _python("-m", "tools.measure.ray", "--out", _out(at, "ray.json")),
        ("ray.json",),
    ),
    Part("avatar", "Variants of the avatar's training", _experiments("avatar_experiments", steps=1000, images=24)),
    Part(
        "small",
        "An even start where pictures are small",
        _experiments("avatar_256", steps=3000, images=32, of_demo="even_start_5"),
    ),
    Part(
        "patience",
        "The demo's avatar, trained four times as long",
        _experiments("avatar_long", steps=12000, images=32, of_demo="default"),
    ),
    Part(
        "tracking",
        "People filmed by one camera",
        lambda at: _python("-m", "tools.measure.tracking", "--out", _out(at, "tracking")),
    ),
    Part(
        "bench",
        "How fast it is",
        lambda at: _python("-m", "tools.measure.benchmarks", "--missing", "--out", _out(at, "bench.json")),
    ),
    Part(
        "web",
        "The web page",
        lambda at: [
            _program("edit3dgs"), "export", "--overwrite", "--load-config", str(at.edited / "config.yml"), "--format", "html",
            "--output", _out(at, "avatar.html"),
        ],
        ("avatar.html",),
        Place.edit_digest,
    ),
    Part(
        "share",
        "The web page and exported splats in a browser, against our rasterizer",
        lambda at: _python(
            "-m", "tools.measure.share", str(at.edited / "config.yml"), "--page", _out(at, "avatar.html"), "--out",
            _out(at, "share.json"),
        ),
        ("share.json",),
        lambda at: f"{at.edit_digest()}-{folder_digest(at.root / 'tools' / 'measure' / 'share')}",
    ),
    Part(
        "viewer",
        "Pictures of the viewer",
        lambda at: _python("-m", "tools.measure.results.viewer_pictures", str(at.edited), str(at.out)),
        ("viewer.png", "viewer_edit.png"),
        Place.edit_digest,
    ),
)  # fmt: skip
"""In the order in which they need each other."""


def run_part(part: Part, place: Place) -> None:
    """Run it unless it is done.

    Raises:
        subprocess.CalledProcessError: its command failed; the command has said why.
    """

    def action(resume: bool) -> None:
        subprocess.run(part.command(place), cwd=place.root, check=True)

    if not part.made:
        action(False)
        return
    outputs = tuple(place.out / name for name in part.made)
    settings = {"command": part.command(place)[1:], "depends_on": part.depends_on(place)}
    StepRunner(place.out).run(Step(part.name, part.title, settings, outputs, action))
