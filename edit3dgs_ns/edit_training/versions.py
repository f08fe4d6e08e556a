"""The history of a run's avatar: every version of it, with the prompt that made it, kept so that each can come back bit for bit.

    RUN/history/history.json    the versions, and which of them is the run's avatar now
    RUN/history/0000.ckpt       version 0, the trained avatar; 0001.ckpt what the first edit made of it; ...
    RUN/nerfstudio_models/      holds the current version: what ns-viewer, ns-render, ns-export and --pipeline.avatar take

A version is the checkpoint's file itself (a hard link where the file system has them), so that it costs no time and, as long as
it is the current one, no disk. Checkpoints are never written in place, so a link never changes. A return
to a version is noted in history.json before a checkpoint is touched; if the process dies in between, the next one that opens the
history completes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edit3dgs_ns.errors import MissingFileError, UserError
from edit3dgs_ns.files import write_durably, written_beside
from edit3dgs_ns.splats.checkpoints import CHECKPOINT_FOLDER, CHECKPOINT_NAME
from edit3dgs_ns.untrusted import parse_json

FOLDER = "history"
_FILE = "history.json"
_ROUNDS = "edit_history.json"
"""The rounds of `ns-train edit3dgs`: the prompt of an edit that has no history yet."""
_MOST = 10**9
"""Of versions and steps."""
_TICK_NS = 2_000_000_000
"""The coarsest clock of a file system (FAT's)."""
_DIGESTS: dict[tuple[int, ...], str] = {}
"""By device, inode, size and times of a file."""


@dataclass(frozen=True)
class Version:
    """One state of a run's avatar."""

    number: int
    prompt: str | None
    """The edit that made it; None for an avatar as it was trained."""
    parent: int | None
    """The version that was edited."""
    step: int
    """Of its checkpoint."""
    sha256: str
    """Of its checkpoint's file."""
    made: str
    """When, ISO 8601 in UTC."""
    options: dict[str, Any] = field(default_factory=dict)
    """How it was edited, as JSON values."""


class RunHistory:
    """The versions of one run. Opening it changes nothing, unless a process died while it went back: that is finished.

    Args:
        run: the run's folder.

    Raises:
        FileNotFoundError: there is neither a checkpoint nor a history.
        ValueError: history.json is damaged.
    """

    def __init__(self, run: Path):
        self.run = Path(run)
        self.folder = self.run / FOLDER
        self._versions: list[Version] = []
        self._current: int | None = None
        pending = self._read()
        if pending is not None:
            self._put_in_place(pending)
        self._newest = _newest_checkpoint(self.run)
        if self._newest is None and not self._versions:
            raise MissingFileError(
                f"{self.run / CHECKPOINT_FOLDER}: no checkpoint (step-*.ckpt). Expected a run of ns-train that has saved one."
            )

    @classmethod
    def begin(cls, run: Path, avatar: Path) -> RunHistory:
        """The history of a run that is to edit another run's avatar; goes on with what the other one's history says of it.

        Args:
            run: the new run's folder. If it has a history already, nothing happens.
            avatar: the checkpoint that it begins with; of a run (then with its history), or any other.
        """
        folder = Path(run) / FOLDER
        if not (folder / _FILE).is_file():
            _take_over(_origin(avatar), folder)
        return cls(run)

    # -- what there is -----------------------------------------------------------------------------------------------

    @property
    def versions(self) -> list[Version]:
        """All versions, oldest first. The run's newest checkpoint is the last, even if nobody has recorded it yet."""
        unrecorded = self._unrecorded()
        return self._versions + ([] if unrecorded is None else [unrecorded])

    @property
    def current(self) -> Version:
        """What the run's avatar is now."""
        unrecorded = self._unrecorded()
        return unrecorded if unrecorded is not None else self.version(self._current)

    @property
    def recorded(self) -> Version:
        """The current version as far as it is recorded: what a run that is going on has begun with."""
        return self.version(self._current)

    def version(self, number: int | None) -> Version:
        """A version by its number.

        Raises:
            ValueError: there is none; the message lists those that are there.
        """
        for version in self.versions:
            if version.number == number:
                return version
        known = ", ".join(str(version.number) for version in self.versions)
        raise UserError(
            f"{self.run} has no version {number}; it has {known}. `edit3dgs history RUN` lists them."
        )

    def chain(self, number: int | None = None) -> list[Version]:
        """How a version (the current one if not given) came to be: from the trained avatar to itself."""
        version = self.current if number is None else self.version(number)
        chain = [version]
        while chain[0].parent is not None:
            chain.insert(0, self.version(chain[0].parent))
        return chain

    def is_edited(self) -> bool:
        """Whether the current version is the result of an edit."""
        return any(version.prompt is not None for version in self.chain())

    def checkpoint(self, number: int) -> Path:
        """The checkpoint of a version. To be read, never to be changed.

        Raises:
            ValueError: there is no such version, or its file is not what was recorded.
        """
        version = self.version(number)
        if version not in self._versions:
            assert self._newest is not None
            return self._newest
        path = self._file(version)
        if not path.is_file() or _sha256(path) != version.sha256:
            raise UserError(
                f"{path} is missing or was changed, so version {number} of {self.run} cannot come back. "
                "Restore the file from a copy, or choose another version: `edit3dgs history RUN`."
            )
        return path

    # -- changing it -------------------------------------------------------------------------------------------------

    def add(
        self, checkpoint: Path, prompt: str, parent: int, options: Mapping[str, Any] | None = None
    ) -> Version:
        """Take a new checkpoint (a file of any name, of which the history keeps a copy or a link) and make it the run's avatar.

        Args:
            checkpoint: its name `step-N.ckpt` says the step.
            prompt: the edit that made it.
            parent: the version that was edited.
            options: how, as JSON values.
        """
        self.keep_current()
        self.version(parent)
        plain = json.loads(json.dumps(dict(options or {})))
        added = self._described(checkpoint, prompt, parent, plain)
        self._append(checkpoint, added, current=False)
        return self.revert_to(added.number)

    def revert_to(self, number: int) -> Version:
        """Make a version the run's avatar again. No version is lost: a later one can be reverted to as well.

        Raises:
            ValueError: there is no such version, or its file is damaged.
        """
        self.checkpoint(number)
        self.keep_current()
        version = self.version(number)
        self._write(pending=number)
        self._put_in_place(number)
        self._newest = _newest_checkpoint(self.run)
        return version

    def undo(self) -> Version:
        """Go back to what was edited last.

        Raises:
            ValueError: the current version is no edit of another one.
        """
        parent = self.current.parent
        if parent is None:
            raise UserError(
                f"{self.run}: there is no edit to undo. Version {self.current.number} is where its history begins."
            )
        return self.revert_to(parent)

    def keep_current(self) -> Version:
        """Record the newest checkpoint, if it is not a version yet, as what the run's own files say it is."""
        version = self._unrecorded()
        if version is None:
            return self.current
        assert self._newest is not None
        return self._append(self._newest, version)

    # -- files -------------------------------------------------------------------------------------------------------

    def _unrecorded(self) -> Version | None:
        """The newest checkpoint as a version, if none of the recorded ones is this file."""
        if self._newest is None:
            return None
        for version in reversed(self._versions):
            if _same_content(self._newest, self._file(version), version.sha256):
                return None
        prompt, options = _last_edit(self.run)
        return self._described(self._newest, prompt, self._current, options)

    def _described(
        self, checkpoint: Path, prompt: str | None, parent: int | None, options: dict[str, Any]
    ) -> Version:
        number = max((version.number for version in self._versions), default=-1) + 1
        return _describe(checkpoint, number, prompt, parent, options)

    def _append(self, checkpoint: Path, version: Version, current: bool = True) -> Version:
        _link(checkpoint, self._file(version))
        self._versions.append(version)
        if current:
            self._current = version.number
        self._write()
        return version

    def _put_in_place(self, number: int) -> None:
        version = next(version for version in self._versions if version.number == number)
        models = self.run / CHECKPOINT_FOLDER
        target = models / f"step-{version.step:09d}.ckpt"
        if not self._file(version).is_file():
            raise UserError(
                f"{self._file(version)} is missing, so going back to version {number} of {self.run} cannot be completed. Restore "
                f"the file from a copy, or move the folder {self.folder} away: the history then begins anew."
            )
        _link(self._file(version), target)
        for path in models.glob("step-*.ckpt"):
            if path == target:
                continue
            if self._is_version(path):
                path.unlink()
            elif _step(path) > version.step:  # Nerfstudio loads the highest step
                os.replace(path, self.folder / path.name)
        self._current = number
        self._write()

    def _is_version(self, path: Path) -> bool:
        return any(_same_content(path, self._file(version), version.sha256) for version in self._versions)

    def _file(self, version: Version) -> Path:
        return _kept_file(self.folder, version)

    def _write(self, pending: int | None = None) -> None:
        _write_versions(self.folder, self._versions, self._current, pending)

    def _read(self) -> int | None:
        """Reads history.json; returns the version that a dead process was going back to."""
        path = self.folder / _FILE
        if not path.is_file():
            return None
        try:
            content = parse_json(path.read_text(encoding="utf-8"))
            self._versions = [_checked(Version(**entry)) for entry in content["versions"]]
            self._current, pending = content["current"], content["pending"]
            numbers = [version.number for version in self._versions]
            _check_parents(self._versions)
            if type(self._current) is not int or self._current not in numbers:
                raise UserError("its current version is not among its versions")
            if pending is not None and (type(pending) is not int or pending not in numbers):
                raise UserError("its pending version is not among its versions")
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path} is damaged ({error}). Move the folder {self.folder} away: the history then begins anew with the run's "
                "current avatar."
            ) from error
        return pending


def _checked(version: Version) -> Version:
    """Raises a ValueError for a version with values of other types than `_write_versions` writes."""
    numbers = {"number": version.number, "step": version.step}
    if version.parent is not None:
        numbers["parent"] = version.parent
    wrong = [name for name, value in numbers.items() if type(value) is not int or not 0 <= value < _MOST]
    texts = {
        "sha256": version.sha256,
        "made": version.made,
        "prompt": "" if version.prompt is None else version.prompt,
    }
    wrong += [name for name, value in texts.items() if not isinstance(value, str)]
    wrong += [] if isinstance(version.options, dict) else ["options"]
    if wrong:
        found = ", ".join(f"{name} {getattr(version, name)!r:.40}" for name in wrong)
        raise UserError(f"a version has {found}")
    return version


def _check_parents(versions: list[Version]) -> None:
    """Raises a ValueError unless numbers ascend and every parent is an earlier version: going back has to end."""
    seen: set[int] = set()
    for version in versions:
        if seen and version.number <= max(seen):
            raise UserError(f"version {version.number} comes after version {max(seen)}")
        if version.parent is not None and version.parent not in seen:
            raise UserError(
                f"version {version.number} was made of version {version.parent}, which is not before it"
            )
        seen.add(version.number)


def _take_over(chain: list[tuple[Version, Path]], folder: Path) -> None:
    """Writes a history whose versions are those of a chain, oldest first, numbered from 0."""
    number_here: dict[int, int] = {}
    versions: list[Version] = []
    folder.mkdir(parents=True, exist_ok=True)
    for version, checkpoint in chain:
        parent = None if version.parent is None else number_here[version.parent]
        here = replace(version, number=len(versions), parent=parent)
        number_here[version.number] = here.number
        _link(checkpoint, _kept_file(folder, here))
        versions.append(here)
    _write_versions(folder, versions, versions[-1].number, None)


def _kept_file(folder: Path, version: Version) -> Path:
    return folder / f"{version.number:04d}.ckpt"


def _write_versions(folder: Path, versions: list[Version], current: int | None, pending: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "current": current,
        "pending": pending,
        "versions": [asdict(version) for version in versions],
    }
    write_durably(folder / _FILE, (json.dumps(content, indent=1) + "\n").encode())


def _newest_checkpoint(run: Path) -> Path | None:
    folder = run / CHECKPOINT_FOLDER
    steps = {_step(path): path for path in folder.glob("step-*.ckpt") if CHECKPOINT_NAME.fullmatch(path.name)}
    return steps[max(steps)] if steps else None


def _origin(checkpoint: Path) -> list[tuple[Version, Path]]:
    """How the avatar of a checkpoint came to be, as far as its place tells: versions and their files, oldest first."""
    run = checkpoint.parent.parent
    if checkpoint.parent.name in (FOLDER, CHECKPOINT_FOLDER):
        history = RunHistory(run)
        for version in history.versions:
            path = history.checkpoint(version.number)
            if os.path.samefile(path, checkpoint) or _same_content(checkpoint, path, version.sha256):
                return [(step, history.checkpoint(step.number)) for step in history.chain(version.number)]
    return [(_describe(checkpoint, 0, None, None, {}), checkpoint)]


def _describe(
    checkpoint: Path, number: int, prompt: str | None, parent: int | None, options: dict[str, Any]
) -> Version:
    made = datetime.fromtimestamp(checkpoint.stat().st_mtime, timezone.utc)
    return Version(
        number=number,
        prompt=prompt,
        parent=parent,
        step=_step(checkpoint),
        sha256=_sha256(checkpoint),
        made=made.isoformat(timespec="seconds"),
        options=options,
    )


def _step(checkpoint: Path) -> int:
    """From its name; 0 for a checkpoint with a name of its own."""
    match = CHECKPOINT_NAME.fullmatch(checkpoint.name)
    return 0 if match is None else int(match[1])


def _last_edit(run: Path) -> tuple[str | None, dict[str, Any]]:
    """The prompt of a run of `ns-train edit3dgs`, and its rounds; (None, {}) for any other run."""
    with contextlib.suppress(OSError, ValueError):
        content = parse_json((run / _ROUNDS).read_text(encoding="utf-8"))
        if isinstance(content, dict) and isinstance(content.get("prompt"), str):
            options = {"rounds": content.get("rounds"), "editor": content.get("editor")}
            expression = content.get("expression")
            return content["prompt"], options | ({"expression": expression} if expression else {})
    return None, {}


def _same_content(path: Path, kept: Path, sha256: str) -> bool:
    if not kept.is_file():
        return False
    return os.path.samefile(path, kept) or (
        path.stat().st_size == kept.stat().st_size and _sha256(path) == sha256
    )


def _sha256(path: Path) -> str:
    """Of a file's content; read again only where the file was written since (checkpoints are large, and asked for often)."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        key = (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns)
        known = _DIGESTS.get(key)
        if known is not None:
            return known
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
        after = os.fstat(file.fileno())
    # A write in the clock's same tick would leave the same times, so that only what has rested for a while is remembered.
    rested = time.time_ns() - max(after.st_mtime_ns, after.st_ctime_ns) > _TICK_NS
    if rested and (after.st_size, after.st_mtime_ns, after.st_ctime_ns) == key[2:]:
        _DIGESTS[key] = digest.hexdigest()
    return digest.hexdigest()


def _link(source: Path, target: Path) -> None:
    """A second name for a file, or a copy where the file system has no links; under `target` there is all of it or the former
    file."""
    with written_beside(target) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(source, partial)
        except OSError:
            shutil.copyfile(source, partial)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())
