"""The import rules of the house hold: who may import whom, and what must not be loaded at start."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Collection
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ("flame", "splats", "capture", "synthetic", "editing", "evaluation", "web", "tracking")
PLUGIN_ONLY = ("nerfstudio", "edit3dgs_ns.dataparsers", "edit3dgs_ns.method_configs")


def test_import_contracts_are_kept() -> None:
    # In a process of its own: import-linter switches off the loggers that exist when it starts.
    run = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--config", ROOT / ".importlinter", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("package", CORE)
def test_core_names_no_plugin_module(package: str) -> None:
    """import-linter does not see the two folders that setuptools maps into the package: read the sources."""
    for path in (ROOT / "edit3dgs_ns" / package).rglob("*.py"):
        for name in _imported_names(path):
            offends = [bad for bad in PLUGIN_ONLY if name == bad or name.startswith(f"{bad}.")]
            assert not offends, f"{path.relative_to(ROOT)} imports {name}"


def test_core_imports_where_nerfstudio_is_not_installed() -> None:
    modules = [
        _module_name(path) for package in CORE for path in (ROOT / "edit3dgs_ns" / package).rglob("*.py")
    ]
    lines = ["import importlib, sys", "sys.modules['nerfstudio'] = None"]
    lines += [f"importlib.import_module({module!r})" for module in sorted(modules)]
    _run_python("\n".join(lines))


@pytest.mark.parametrize("method", ["rigged_splatfacto", "rigged_splatfacto_fast", "edit3dgs"])
def test_method_configs_load_no_heavy_library(method: str) -> None:
    """Every `ns-*` command imports them: what they load, everybody waits for."""
    heavy = ["diffusers", "transformers", "sam2", "groundingdino", "numba"]
    _run_python(
        f"import sys, edit3dgs_ns.method_configs.{method}\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )


def test_help_loads_no_heavy_library() -> None:
    heavy = ["torch", "numpy", "numba", "nerfstudio", "diffusers", "av"]
    _run_python(
        "import sys, edit3dgs_ns.commands.main\n"
        "try:\n    edit3dgs_ns.commands.main.run(['--help'])\nexcept SystemExit:\n    pass\n"
        f"loaded = [name for name in {heavy} if name in sys.modules]\n"
        "assert not loaded, loaded"
    )


def test_dataparsers_import_the_core_alone() -> None:
    """import-linter does not see the two folders that setuptools maps into the package."""
    below = ("capture", "splats", "flame", "console", "errors", "files")
    allowed = ("dataparsers", *below)
    for importer, imported in _graph().items():
        if importer.startswith("edit3dgs_ns.dataparsers"):
            offends = [name for name in imported if name.split(".")[1] not in allowed]
            assert not offends, f"{importer} imports {offends}"


def test_nothing_imports_a_method_config_but_method_configs() -> None:
    for importer, imported in _graph().items():
        if not importer.startswith("edit3dgs_ns.method_configs"):
            offends = [name for name in imported if name.startswith("edit3dgs_ns.method_configs")]
            assert not offends, f"{importer} imports {offends}"


def test_no_module_imports_itself_through_others() -> None:
    TopologicalSorter(_graph()).prepare()  # raises CycleError, which names the circle


def test_every_module_is_an_entry_point_or_imported() -> None:
    """By entry points, by the commands, by the Makefile or by tools/; tests do not count."""
    from edit3dgs_ns.commands.main import COMMANDS

    graph: dict[str, set[str]] = _graph()
    reached: set[str] = set()
    waiting = ["edit3dgs_ns.__main__", "edit3dgs_ns.api"]
    waiting += [f"edit3dgs_ns.commands.{target.split(':')[0]}" for target in COMMANDS.values()]
    waiting += [entry.module for entry in distribution("edit3dgs-ns").entry_points]
    waiting += re.findall(r"-m (edit3dgs_ns[.\w]+)", (ROOT / "Makefile").read_text())
    tools = [name for path in (ROOT / "tools").rglob("*.py") for name in _imported_names(path)]
    waiting += [module for name in tools if (module := _module_of(name, graph))]
    while waiting:
        module = waiting.pop()
        if module in graph and module not in reached:
            reached.add(module)
            waiting += [*graph[module], module.rpartition(".")[0]]
    assert sorted(set(graph) - reached) == []


@cache
def _graph() -> dict[str, set[str]]:
    """Modules of the package, the mapped folders among them, and what each imports, also within functions."""
    files = {_module_name(path): path for path in (ROOT / "edit3dgs_ns").rglob("*.py")}
    for folder in ("dataparsers", "method_configs"):
        files |= {f"edit3dgs_ns.{_module_name(path)}": path for path in (ROOT / folder).rglob("*.py")}
    return {
        module: {
            found for name in _imported_names(path) if (found := _module_of(name, files)) and found != module
        }
        for module, path in files.items()
    }


def _module_of(name: str, modules: Collection[str]) -> str | None:
    """Returns the module that a dotted name imports: itself, or the one that it is an attribute of."""
    if name in modules:
        return name
    parent = name.rpartition(".")[0]
    return parent if parent in modules else None


def _imported_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def _import_the_writer_first() -> list[str]:
    """Modules with `from nerfstudio.utils import writer` at their top, and what `edit3dgs demo` imports at its end."""
    files = [
        path
        for path in (ROOT / "edit3dgs_ns").rglob("*.py")
        if "\nfrom nerfstudio.utils import writer" in path.read_text()
    ]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    return [*sorted(names), "edit3dgs_ns.demo.result"]


@pytest.mark.parametrize("name", _import_the_writer_first())
def test_a_process_can_begin_with_it(name: str) -> None:
    """Nerfstudio's writer and its configs import each other: which comes first decides whether they can."""
    command = [sys.executable, "-W", "ignore", "-c", f"import {name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
