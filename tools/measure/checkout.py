"""The tests' small captures, editors and runs, for tools that measure with them."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from pathlib import Path


def make_tests_importable() -> None:
    """`import tests.edit_runs` finds this checkout's: some installed packages bring a package `tests` of their own."""
    folder = str(Path(__file__).resolve().parents[2] / "tests")
    known = sys.modules.get("tests")
    if known is not None and folder in list(getattr(known, "__path__", [])):
        return
    spec = importlib.machinery.ModuleSpec("tests", None, is_package=True)
    spec.submodule_search_locations = [folder]
    sys.modules["tests"] = importlib.util.module_from_spec(spec)
