"""Whether a kernel still has to be compiled is known before it is called."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from edit3dgs_ns.splats.jit import compiled_before

MODULE = """
from edit3dgs_ns.splats.jit import kernel

@kernel()
def twice(x):
    return 2 * x
"""


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("kernels", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.twice


def test_a_kernel_is_compiled_once_per_machine(tmp_path: Path) -> None:
    path = tmp_path / "kernels.py"
    path.write_text(MODULE)
    first = load(path)
    assert not compiled_before(first)
    assert first(2) == 4
    assert compiled_before(first)
    assert compiled_before(load(path))  # in another process
