"""The README and the pages of docs/: command lines parse, links lead somewhere, quoted messages are in the code."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tyro

from edit3dgs_ns.commands.main import COMMANDS, parse

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
METHODS = ("rigged-splatfacto", "rigged-splatfacto-fast", "edit3dgs", "nerfacto", "splatfacto")
PLACEHOLDERS = {"N": "1", "X": "0.1"}
"""Numbers that a page leaves open."""
OF_OTHERS = {"--constraint", "--editable", "--person", "--heldout"}
"""Options of pip, and of our shell scripts."""
BLOCK = re.compile(r"(?ms)^```(\w*)\n(.*?)^```")


def code_of(page: Path, language: str) -> list[str]:
    """A page's code blocks in a language; those of the shell name none."""
    return [code for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def blocks(page: Path) -> Iterator[list[str]]:
    """Command lines of a page's code blocks, as words; without comments and output."""
    for block in code_of(page, ""):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True) if "'" not in line or line.count("'") % 2 == 0 else []
            if words:
                words[0] = words[0].removeprefix(".venv/bin/")
                yield [PLACEHOLDERS.get(word, word) for word in words]


def inline(page: Path) -> list[str]:
    """Code within a page's sentences, tables and headings."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def lines_of(*programs: str) -> list[Any]:
    return [
        pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}")
        for page in PAGES
        for words in blocks(page)
        if words[0] in programs
    ]


@cache
def nerfstudio_commands() -> dict[str, Any]:
    """What `ns-train` and its sisters parse, for the methods that the pages name."""
    from nerfstudio.configs.method_configs import all_methods
    from nerfstudio.scripts.eval import ComputePSNR
    from nerfstudio.scripts.render import Commands as Render
    from nerfstudio.scripts.viewer.run_viewer import RunViewer

    methods = tyro.extras.subcommand_type_from_defaults({name: all_methods[name] for name in METHODS})
    return {
        "ns-train": tyro.conf.SuppressFixed[tyro.conf.FlagConversionOff[methods]],
        "ns-render": Render,
        "ns-eval": ComputePSNR,
        "ns-viewer": tyro.conf.FlagConversionOff[RunViewer],
    }


@pytest.mark.parametrize("words", lines_of("edit3dgs"))
def test_our_command_lines_parse(words: list[str]) -> None:
    parse(words[1:])


@pytest.mark.parametrize("words", lines_of("ns-train", "ns-render", "ns-eval", "ns-viewer"))
def test_command_lines_of_nerfstudio_parse(words: list[str]) -> None:
    tyro.cli(nerfstudio_commands()[words[0]], args=words[1:])


def help_of(kind: Any, *args: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
        tyro.cli(kind, args=[*args, "--help"], config=(tyro.conf.FlagCreatePairsOff,))
    return output.getvalue()


@cache
def known_options() -> frozenset[str]:
    """Long options of all our commands and of those of Nerfstudio that the pages name."""
    texts = []
    for name in COMMANDS:
        output = io.StringIO()
        with contextlib.redirect_stdout(output), pytest.raises(SystemExit):
            parse([name, "--help"])
        texts.append(output.getvalue())
    for program, kind in nerfstudio_commands().items():
        for method in METHODS[:3] if program == "ns-train" else [()]:
            texts.append(help_of(kind, *([method] if method else [])))
    texts += [help_of(nerfstudio_commands()["ns-train"], "edit3dgs", "nersemble-data")]
    return frozenset(re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", "\n".join(texts)))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_named_in_sentences_exist(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    own = [code for code in inline(page) if not code.startswith(("pip ", "docker ", "tools/"))]
    named = {option for code in own for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", code)}
    assert sorted(named - known_options() - OF_OTHERS) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_named_in_sentences_exist(page: Path) -> None:
    named = {code.split()[1] for code in inline(page) if code.startswith("edit3dgs ")}
    assert sorted(name for name in named if name not in COMMANDS and not name.startswith("-")) == []


def test_python_on_the_pages_uses_what_the_api_has() -> None:
    from edit3dgs_ns import api

    codes = [code for page in PAGES for code in code_of(page, "python")]
    assert codes
    known = {*dir(api.Avatar), *dir(api.Motion), *dir(api.Camera), *api.EditedBatch.__annotations__}
    for code in codes:
        nodes = list(ast.walk(ast.parse(code)))
        imported = {name.name for node in nodes if isinstance(node, ast.ImportFrom) for name in node.names}
        used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
        assert imported <= set(api.__all__) and used <= known


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    for page in PAGES:
        codes = [*inline(page), *(" ".join(words) for words in blocks(page))]
        named = {code.split()[1] for code in codes if code.startswith("make ")}
        assert named <= targets, page


def test_the_readme_is_one_page_and_its_links_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"):
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if "://" not in link and not (ROOT / link).is_file()] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [page for page in PAGES if page.parent == ROOT / "docs"]
    assert [page.name for page in pages if f" {page.name}\n" not in navigation] == []


@cache
def messages() -> str:
    """All strings of the code, with … for what is filled in."""
    found = []
    for folder in ("edit3dgs_ns", "dataparsers", "method_configs"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
                    found.append("".join(map(str, parts)))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return "\n".join([*found, (ROOT / "Makefile").read_text(encoding="utf-8")])


def test_messages_of_the_faq_are_those_of_the_code() -> None:
    headings = re.findall(r"(?m)^### `([^`]+)`$", (ROOT / "docs" / "faq.md").read_text(encoding="utf-8"))
    assert len(headings) > 15
    assert [heading for heading in headings if heading not in messages()] == []
