"""The import rules of the house hold: who may import whom, and what must not be loaded at start."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CORE = ("flame", "splats", "capture", "synthetic", "editing", "evaluation", "web")
PLUGIN_ONLY = ("nerfstudio", "edit3dgs_ns.dataparsers", "edit3dgs_ns.method_configs")


def test_import_contracts_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    from importlinter.cli import lint_imports

    code = lint_imports(config_filename=str(ROOT / ".importlinter"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


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


def _imported_names(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


def _module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _run_python(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
