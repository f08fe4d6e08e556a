"""What the demo's result depends on, and the files that it makes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from edit3dgs_ns.synthetic.settings import CaptureSettings

CHECKPOINTS = "nerfstudio_models"
BASE_METHOD = "rigged-splatfacto-fast"
"""The method that trains the demo's avatar."""
RUN = "run"
"""The fixed time stamp of the demo's training runs, so that a second run finds them."""


QUICK_STEPS = 700
"""Length of the avatar's training in the quick demo."""


@dataclass(frozen=True)
class EditSettings:
    """What `ns-train edit3dgs` is asked for; see `ns-train edit3dgs --help`."""

    rounds: int = 20
    edit_every: int = 50
    views_per_edit: int = 4
    final_steps: int = 200

    @property
    def steps(self) -> int:
        """Training steps of the whole edit."""
        return self.rounds * self.edit_every + self.final_steps

    @property
    def flags(self) -> tuple[str, ...]:
        """As flags of ns-train."""
        values = asdict(self).items()
        return tuple(
            word for name, value in values for word in (f"--pipeline.{name.replace('_', '-')}", str(value))
        )


@dataclass(frozen=True)
class RenderSettings:
    """What the last step renders."""

    images_per_task: int = 32
    """Most held-out images per figure, spread evenly."""
    video_seconds: float = 5.0
    fps: int = 24
    scale: float = 1.5
    """Pixels per side of the renders in the grid and in the video, relative to the capture's."""


@dataclass(frozen=True)
class DemoSettings:
    """Everything that the demo's result depends on."""

    prompt: str = "Make him look older"
    editor: str = "demo"
    """The editing model: `demo`, `demo-flow`, a folder, or a hub id."""
    capture: CaptureSettings = field(default_factory=CaptureSettings)
    base_steps: int = 3000
    edit: EditSettings = field(default_factory=EditSettings)
    base_flags: tuple[str, ...] = ()
    """More flags for the avatar's training."""
    train_flags: tuple[str, ...] = ()
    """More flags for both trainings."""
    edit_flags: tuple[str, ...] = ()
    """More flags for `ns-train edit3dgs`."""
    render: RenderSettings = field(default_factory=RenderSettings)

    @classmethod
    def quick(cls) -> DemoSettings:
        """The same at half the image size with a fraction of the training: two to three minutes on two cores."""
        return cls(
            capture=CaptureSettings(width=128, height=128, cameras=8, frames=12),
            base_steps=QUICK_STEPS,
            edit=EditSettings(rounds=5, edit_every=30, views_per_edit=4, final_steps=50),
            base_flags=_schedule(QUICK_STEPS),
            render=RenderSettings(images_per_task=12, video_seconds=3.0),
        )

    @classmethod
    def tiny(cls) -> DemoSettings:
        """The same way in a minute, with nothing worth looking at in the end."""
        return cls(
            capture=CaptureSettings(width=64, height=64, cameras=4, frames=3),
            base_steps=20,
            edit=EditSettings(rounds=2, edit_every=3, views_per_edit=2, final_steps=2),
            edit_flags=("--pipeline.editor.steps", "3"),
            render=RenderSettings(images_per_task=3, video_seconds=0.5, fps=8, scale=1.0),
        )

    def flags_of_edit(self, avatar: Path) -> tuple[str, ...]:
        """What `ns-train edit3dgs` is told to edit this avatar, a run's folder."""
        what = (
            "--prompt",
            self.prompt,
            "--pipeline.avatar",
            str(avatar),
            "--pipeline.editor.model",
            self.editor,
        )
        return (*what, *self.edit.flags, *self.train_flags, *self.edit_flags)

    def with_options(self, prompt: str, seed: int) -> DemoSettings:
        """Returns the same with another prompt and another person."""
        return replace(self, prompt=prompt, capture=replace(self.capture, seed=seed))


@dataclass(frozen=True)
class DemoFiles:
    """Files and folders of one demo."""

    out: Path

    @property
    def capture(self) -> Path:
        """The synthetic capture."""
        return self.out / "capture"

    @property
    def base(self) -> Path:
        """Trainings of the avatar; see `run_dir`."""
        return self.out / "base"

    @property
    def edit(self) -> Path:
        """Trainings of the edit; see `run_dir`."""
        return self.out / "edit"

    @property
    def grid(self) -> Path:
        """Before and after in several views and expressions."""
        return self.out / "before_after.png"

    @property
    def video(self) -> Path:
        """Before and after in the sequence not trained on."""
        return self.out / "reenactment.mp4"

    @property
    def report(self) -> Path:
        """The figures."""
        return self.out / "report.json"


def _schedule(steps: int) -> tuple[str, ...]:
    """What `rigged-splatfacto-fast` does in 3,000 steps, in fewer."""
    groups = (
        *("means", "features-dc", "features-rest", "opacities", "scales", "quats", "light"),
        *("flame-expr", "flame-translation", "flame-rotation", "flame-neck", "flame-jaw", "flame-eyes"),
    )
    model = {
        "warmup-length": steps // 6,
        "refine-every": steps // 12,
        "sh-degree-interval": steps // 3,
        "resolution-schedule": steps // 3,
        "stop-split-at": steps,
    }
    return (
        *(word for name in groups for word in (f"--optimizers.{name}.scheduler.max-steps", str(steps))),
        *(word for name, value in model.items() for word in (f"--pipeline.model.{name}", str(value))),
    )


def run_dir(folder: Path, method: str) -> Path:
    """Where ns-train puts the run of a step."""
    return folder / method / RUN
