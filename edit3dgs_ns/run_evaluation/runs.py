"""The runs that `edit3dgs evaluate` compares: found and checked before anything is rendered, then opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.splats.checkpoints import find_checkpoint, model_state, read_checkpoint
from edit3dgs_ns.splats.run_config import edited_avatar
from edit3dgs_ns.untrusted import parse_json

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.runs.trained_run import TrainedRun

OPTION = "--load-config"
HISTORY_FILE = "edit_history.json"
"""As `rounds` writes it; named here because importing that module takes seconds."""
_RUN = "the config.yml of a run of `ns-train edit3dgs`"
BASE = "the avatar before the edit: a run of `ns-train rigged-splatfacto`"


@dataclass(frozen=True)
class EditedRun:
    """An edited run, as its files describe it."""

    name: str
    config: Path
    base: Path
    """Checkpoint of the avatar that it came from."""
    history: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Of the run."""
        return self.config.parent

    @property
    def prompt(self) -> str:
        """The edit's prompt."""
        return str(self.history.get("prompt", ""))

    @property
    def editor(self) -> str:
        """The diffusion model."""
        editor = self.history.get("editor")
        return str(editor.get("model", "unknown")) if isinstance(editor, dict) else "unknown"


def find_edited_runs(configs: Sequence[Path], base: Path | None = None) -> list[EditedRun]:
    """Finds edited runs and reads their files, without loading them.

    Args:
        configs: a config.yml or the folder that it is in, each.
        base: the avatar before the edit; None for each run's `--pipeline.avatar`.

    Raises:
        FileNotFoundError: a file or the avatar before the edit is not there.
        ValueError: a run has not edited anything.
    """
    found = [config_file(path) for path in configs]
    names = run_names([path.parent for path in found])
    return [_edited_run(name, config, base) for name, config in zip(names, found, strict=True)]


def _edited_run(name: str, config: Path, base: Path | None) -> EditedRun:
    given = None if base is None else find_checkpoint(base, "--base", BASE)
    if (config.parent / "history" / "history.json").is_file():
        return _from_versions(name, config, given)
    rounds = _rounds(config)
    return EditedRun(name, config, given or _avatar_of(config), rounds)


def check_edited(config: Path) -> None:
    """Raises a ValueError for a run that has edited nothing."""
    if not (config.parent / "history" / "history.json").is_file():
        _rounds(config)


def _from_versions(name: str, config: Path, base: Path | None) -> EditedRun:
    """A run with versions: the current one, compared with the version that was edited."""
    from edit3dgs_ns.edit_training.versions import RunHistory

    versions = RunHistory(config.parent)
    current = versions.current
    if current.prompt is None or current.parent is None:
        raise UserError(
            f"{OPTION} {config}: its current avatar (version {current.number}) is none that was edited. Go to an edit first: "
            f"edit3dgs history {config.parent}"
        )
    rounds = {"prompt": current.prompt, "editor": current.options.get("editor")}
    if (config.parent / HISTORY_FILE).is_file():
        recorded = _rounds(config)
        rounds = recorded if recorded.get("prompt") == current.prompt else rounds
    return EditedRun(name, config, base or versions.checkpoint(current.parent), rounds)


def run_names(folders: Sequence[Path]) -> list[str]:
    """Short names that tell runs apart: the parts of their paths that differ; of a single one, its experiment."""
    parts = [Path(os.path.abspath(folder)).parts for folder in folders]
    if len(parts) == 1:
        return [parts[0][-3] if len(parts[0]) > 3 else parts[0][-1]]
    longest = max(len(own) for own in parts)
    columns = [{own[i] if i < len(own) else "" for own in parts} for i in range(longest)]
    differing = [i for i, column in enumerate(columns) if len(column) > 1]
    return ["/".join(own[i] for i in differing if i < len(own)) or own[-1] for own in parts]


class OpenRuns:
    """Opens runs once, however often they are asked for: several edits share the avatar that they came from."""

    def __init__(self) -> None:
        self._open: dict[Path, TrainedRun] = {}

    def edited(self, run: EditedRun) -> TrainedRun:
        """The avatar after the edit."""
        return self._get(run.config, None)

    def base(self, run: EditedRun) -> TrainedRun:
        """The avatar before the edit."""
        config = run.base.parent.parent / "config.yml"
        if not config.is_file():
            raise MissingFileError(
                f"{config} is missing: it says how to load {run.base}. Give --base RUN, {BASE}."
            )
        return self._get(config, run.base)

    def _get(self, config: Path, checkpoint: Path | None) -> TrainedRun:
        from edit3dgs_ns.runs.trained_run import TrainedRun

        key = checkpoint or config
        if key not in self._open:
            run = TrainedRun.of_capture(config)
            if checkpoint is not None and checkpoint != find_checkpoint(config, "--base", BASE):
                run.pipeline.model.load_state_dict(model_state(read_checkpoint(checkpoint, "--base")))
            run.pipeline.model.requires_grad_(False)
            self._open[key] = run
        return self._open[key]


@contextmanager
def driven_by(runs: Sequence[TrainedRun], motion: FlameMotion | None) -> Iterator[None]:
    """While inside, the avatars are driven by `motion` (None: their own); normalised times are of this motion.

    Raises:
        ValueError: the motion belongs to another head model.
    """
    heads = [run.pipeline.model.head for run in runs] if motion is not None else []
    before = [head.motion() for head in heads]
    try:
        for head in heads:
            head.set_motion(motion)
        yield
    finally:
        for head, own in zip(heads, before, strict=True):
            head.set_motion(own)


def config_file(path: Path) -> Path:
    """The config.yml that a user means: the file itself, or the folder that it is in."""
    path = Path(path).expanduser()
    config = path / "config.yml" if path.is_dir() else path
    if not config.is_file():
        raise MissingFileError(f"{OPTION} {path}: no such file. Expected {_RUN}.")
    return config


def _rounds(config: Path) -> dict[str, Any]:
    """Content of the run's edit history."""
    path = config.parent / HISTORY_FILE
    if not path.is_file():
        raise UserError(
            f"{OPTION} {config}: this run has no {HISTORY_FILE}, so it has not edited anything. Expected {_RUN}. "
            "For the quality of an avatar alone: --quality-only"
        )
    try:
        history = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON: {error}. It may be cut off.") from error
    if not isinstance(history, dict) or not history.get("rounds"):
        raise UserError(
            f"{OPTION} {config}: its {HISTORY_FILE} has no finished round, so there is no edit to evaluate. "
            f"Go on with the run: ns-train edit3dgs ... --load-dir {config.parent / 'nerfstudio_models'}"
        )
    return history


def _avatar_of(config: Path) -> Path:
    """The checkpoint that `--pipeline.avatar` named."""
    avatar = edited_avatar(config)
    if avatar is None:
        raise UserError(
            f"{OPTION} {config}: this run has trained its avatar itself and kept only the edited one. Give --base RUN, "
            f"{BASE}, on the same capture."
        )
    try:
        return find_checkpoint(avatar, "--pipeline.avatar", BASE)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"{config}: the avatar that was edited is not where it was. {error} Say where it is now: --base RUN"
        ) from error
