"""What is compared: arms, instructions and seeds, and how much work a row is.

All arms draw the noise of every view anew (`shared_noise False`), as Instruct-NeRF2NeRF does: with one noise for all views, as
    `edit3dgs` has it by default, much of what the noise decides agrees before any view looks at another.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass
from typing import Any, Literal

Correspondence = Literal["none", "epipolar", "rig"]

Retention = bool | Literal["auto"]
KEPT: dict[Retention, str] = {True: "eyes,mouth", False: "none", "auto": "auto"}
"""What `--pipeline.editor.keep` is for each kind of expression retention."""
QUICK_FLAGS = ("--optimizers.features-dc.optimizer.lr", "0.03")
"""A row is short: at the usual rate, 0.01, colours could not change from dark to bright in its steps."""


@dataclass(frozen=True)
class Arm:
    """How the views of a batch are edited."""

    correspondence: Correspondence
    retention: Retention

    @property
    def name(self) -> str:
        """For folders and tables."""
        ending: dict[Retention, str] = {True: "_keep", False: "", "auto": "_auto"}
        return self.correspondence + ending[self.retention]

    @property
    def title(self) -> str:
        """For readers."""
        how = {"none": "each view alone", "epipolar": "key views, epipolar", "rig": "key views, rig"}
        kept: dict[Retention, str] = {True: " + retention", False: "", "auto": " + retention where it fits"}
        return how[self.correspondence] + kept[self.retention]


ARMS = (
    *(Arm(c, keep) for c, keep in itertools.product(("none", "epipolar", "rig"), (False, True))),  # type: ignore[arg-type]
    Arm("rig", "auto"),
)


@dataclass(frozen=True)
class Effort:
    """How much one row is: `ns-train edit3dgs` with few, large rounds."""

    rounds: int = 3
    cameras: int = 4
    """Views of every timestep in a batch."""
    timesteps: int = 3
    """Timesteps in a batch."""
    edit_every: int = 40
    final_steps: int = 60
    steps: int = 10
    """Denoising steps of the whole schedule."""
    noise_last: float = 0.5
    anchors: int = 3
    """Views of the first round that the later ones follow; only where views look at each other."""
    images: int = 24
    """Held-out images per figure, spread evenly."""

    @property
    def train_steps(self) -> int:
        """Training steps of a row."""
        return self.rounds * self.edit_every + self.final_steps

    @classmethod
    def tiny(cls) -> Effort:
        """The same way in a minute, with figures that mean nothing."""
        return cls(
            rounds=2, cameras=2, timesteps=2, edit_every=2, final_steps=1, steps=2, anchors=1, images=2
        )


@dataclass(frozen=True)
class Job:
    """One row: an arm, an edit and a seed."""

    arm: Arm
    edit: str
    """A key of EDITS or OPEN_EDITS."""
    seed: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.edit}_{self.seed}_{self.arm.name}"

    def flags(self, prompt: str, avatar: str, editor: str, effort: Effort) -> tuple[str, ...]:
        """Of `ns-train edit3dgs`."""
        shared = self.arm.correspondence != "none"
        options = {
            "avatar": avatar,
            "seed": self.seed,
            "rounds": effort.rounds,
            "views-per-edit": effort.cameras,
            "timesteps-per-edit": effort.timesteps,
            "timestep-order": "farthest-first",
            "edit-every": effort.edit_every,
            "final-steps": effort.final_steps,
            "noise-last": effort.noise_last,
            "anchors": effort.anchors if shared else 0,
            "editor.model": editor,
            "editor.steps": effort.steps,
            "editor.shared-noise": False,
            "editor.correspondence": self.arm.correspondence,
            "editor.keep": KEPT[self.arm.retention],
        }
        words = [word for name, value in options.items() for word in (f"--pipeline.{name}", str(value))]
        return ("--prompt", prompt, *words, *QUICK_FLAGS)


def jobs(edits: tuple[str, ...], seeds: tuple[int, ...]) -> list[Job]:
    """All rows; those of one edit and seed, which are compared with each other, follow one another."""
    return [Job(arm, edit, seed) for edit, seed, arm in itertools.product(edits, seeds, ARMS)]


def fingerprint(job: Job, effort: Effort, editor_version: str, base: str) -> dict[str, Any]:
    """What a finished row depends on, as JSON values."""
    return {
        **asdict(job),
        "effort": asdict(effort),
        "keep": KEPT[job.arm.retention],
        "editor": editor_version,
        "base": base,
    }
