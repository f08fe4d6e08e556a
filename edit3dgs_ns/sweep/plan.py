"""The plan of a sweep: a TOML file, and the cells that it stands for. Imports nothing heavy."""

from __future__ import annotations

import hashlib
import itertools
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from edit3dgs_ns.editing.editors import check_editor_name
from edit3dgs_ns.editing.worker_names import parse_workers
from edit3dgs_ns.errors import MissingFileError, UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NAME = re.compile(r"[\w.-]+")
_WORD = re.compile(r"[a-z0-9]+")
_MOST_LETTERS = 32
"""Of a prompt in a folder's name."""


@dataclass(frozen=True)
class Subject:
    """Somebody whose avatar is edited."""

    name: str
    data: Path
    """A capture."""
    avatar: Path | None = None
    """A trained avatar; None: it is trained first."""


@dataclass(frozen=True)
class Prompt:
    """An edit."""

    prompt: str
    target_caption: str
    """Describes the image after it."""


@dataclass(frozen=True)
class Cell:
    """One edit of one subject."""

    subject: Subject
    prompt: Prompt
    seed: int
    editor: str

    @property
    def name(self) -> str:
        """Of its folders: says what it is wherever it stands in the plan, so that a longer plan keeps what is done."""
        words = "-".join(_WORD.findall(self.prompt.prompt.lower()))[:_MOST_LETTERS].rstrip("-")
        digest = hashlib.sha256(f"{self.prompt.prompt}\0{self.editor}".encode()).hexdigest()[:6]
        return "-".join(filter(None, (self.subject.name, words, digest, f"seed{self.seed}")))


@dataclass(frozen=True)
class Plan:
    """A sweep."""

    output: Path
    subjects: tuple[Subject, ...]
    prompts: tuple[Prompt, ...]
    source_caption: str
    """Describes the images before the edits."""
    seeds: tuple[int, ...] = (0,)
    editors: tuple[str, ...] = ("timbrooks/instruct-pix2pix",)
    workers: str = "1"
    """Jobs at the same time: a number, or a Ray cluster as for `--pipeline.editor.workers`."""
    clip: str = "openai/clip-vit-large-patch14"
    method: str = "rigged-splatfacto-fast"
    """Trains the avatars."""
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """More options of the commands, by `train`, `edit` and `evaluate`."""

    def cells(self) -> list[Cell]:
        """All edits, subject by subject."""
        return [
            Cell(*cell) for cell in itertools.product(self.subjects, self.prompts, self.seeds, self.editors)
        ]


def read_plan(path: Path) -> Plan:
    """Reads a plan, and checks what can be known at once.

    Relative paths in it are relative to its folder.

    Raises:
        UserError, MissingFileError: the message names the entry, what was found and what is expected.
    """
    path = path.expanduser()
    if not path.is_file():
        raise MissingFileError(
            f"{path}: there is no such plan. Expected a TOML file; the documentation has an example."
        )
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML file: {error}.") from None
    plan = _Reader(path).plan(content)
    parse_workers(plan.workers)
    for editor in plan.editors:
        check_editor_name(editor)
    return plan


_TABLES = {"train": {"method", "flags"}, "edit": {"flags"}, "evaluate": {"flags"}}
_KNOWN = {
    "output", "workers", "seeds", "editors", "clip", "source_caption", "subjects", "prompts", *_TABLES
}  # fmt: skip


class _Reader:
    """Reads the entries of one plan."""

    def __init__(self, path: Path):
        self._path = path

    def plan(self, content: Mapping[str, Any]) -> Plan:
        self._check_keys("", content, _KNOWN)
        tables = {name: self._get(content, name, dict, {}) for name in _TABLES}
        for name, table in tables.items():
            self._check_keys(f"{name}.", table, _TABLES[name])
        subjects = tuple(
            self._subject(k, entry) for k, entry in enumerate(self._list(content, "subjects", dict))
        )
        names = [subject.name for subject in subjects]
        if len(set(names)) < len(names):
            self._refuse(f"subjects: {', '.join(names)}", "different names")
        self._check_different(content)
        defaults = Plan(Path(), (), (), "")
        return Plan(
            output=self._place(self._get(content, "output", str, "outputs/sweep")),
            subjects=subjects,
            prompts=tuple(
                self._prompt(k, entry) for k, entry in enumerate(self._list(content, "prompts", dict))
            ),
            source_caption=self._get(content, "source_caption", str),
            seeds=tuple(self._list(content, "seeds", int, [0])),
            editors=tuple(self._list(content, "editors", str, list(defaults.editors))),
            workers=str(content.get("workers", defaults.workers)),
            clip=self._get(content, "clip", str, defaults.clip),
            method=self._get(tables["train"], "method", str, defaults.method),
            flags={name: tuple(self._list(table, "flags", str, [])) for name, table in tables.items()},
        )

    def _subject(self, number: int, entry: Mapping[str, Any]) -> Subject:
        self._check_keys(f"subjects[{number}].", entry, {"name", "data", "avatar"})
        name = self._get(entry, "name", str)
        if not _NAME.fullmatch(name) or not name.strip("."):
            self._refuse(f"the subject's name {name!r}", "letters, digits, '.', '_' and '-'")
        data = self._place(self._get(entry, "data", str))
        avatar = self._place(entry["avatar"]) if "avatar" in entry else None
        for place in (data, avatar):
            if place is not None and not place.exists():
                raise MissingFileError(f"{self._path}: subject {name}: {place} is not there.")
        return Subject(name, data, avatar)

    def _prompt(self, number: int, entry: Mapping[str, Any]) -> Prompt:
        self._check_keys(f"prompts[{number}].", entry, {"prompt", "target_caption"})
        return Prompt(self._get(entry, "prompt", str), self._get(entry, "target_caption", str))

    def _check_different(self, content: Mapping[str, Any]) -> None:
        """Twice the same would be two jobs in one folder."""
        prompts = [entry.get("prompt") for entry in self._list(content, "prompts", dict)]
        for name, values in {
            "prompts": prompts,
            **{key: content.get(key, []) for key in ("seeds", "editors")},
        }.items():
            twice = [value for k, value in enumerate(values) if value in values[:k]]
            if twice:
                self._refuse(f"{name}: {twice[0]!r} twice", "different ones")

    def _place(self, text: str) -> Path:
        try:
            place = (self._path.parent / Path(text).expanduser()).resolve()
            place.exists()
        except (OSError, RuntimeError, ValueError) as error:  # too long, no such home, NUL
            self._refuse(f"the path {text[:100]!a} ({error.__class__.__name__})", "a path of this machine")
        return place

    def _check_keys(self, where: str, table: Mapping[str, Any], known: set[str]) -> None:
        for key in table:
            if key not in known:
                self._refuse(f"{where}{key}", f"one of {', '.join(sorted(known))}")

    def _get(self, table: Mapping[str, Any], key: str, kind: type, default: Any = None) -> Any:
        value = table.get(key, default)
        if not isinstance(value, kind) or value == "":
            self._refuse(f"{key} = {value!r}" if key in table else f"{key} is missing", f"a {_words(kind)}")
        return value

    def _list(self, table: Mapping[str, Any], key: str, kind: type, default: Any = None) -> list[Any]:
        values = table.get(key, default)
        right = isinstance(values, list) and all(
            isinstance(value, kind) and not isinstance(value, bool) for value in values
        )
        if not right or (not values and key != "flags"):
            said = f"{key} = {values!r}" if key in table else f"{key} is missing"
            self._refuse(said, f"a list of {_words(kind)}s")
        return list(values or [])

    def _refuse(self, found: str, expected: str) -> NoReturn:
        raise UserError(f"{self._path}: {found}; expected {expected}.")


def _words(kind: type) -> str:
    return {str: "text", int: "whole number", dict: "table"}[kind]
