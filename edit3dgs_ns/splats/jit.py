"""How the CPU kernels of this folder are compiled: one decorator, cached on disk where that is possible.

Threads: on Linux, Numba's OpenMP layer finds PyTorch's OpenMP already loaded and shares its threads. Idle
threads of it spin for some milliseconds; on a machine that has other work for its cores,
`OMP_WAIT_POLICY=passive` in the environment (read once, when PyTorch is imported) lets them sleep and makes
training several times faster.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

RELAXED = frozenset({"reassoc", "contract", "arcp", "nsz", "afn"})
"""Fast arithmetic that still knows NaN and infinity: a Gaussian with such numbers is culled, not drawn
anywhere."""


def kernel(parallel: bool = False, fastmath: bool | frozenset[str] = RELAXED) -> Callable[[Callable], Any]:
    """Compile a function with Numba, once per machine.

    Numba keeps the machine code in `__pycache__` beside the source, in the user's cache directory where that
    is read-only, or in `$NUMBA_CACHE_DIR`. Where none of these can be written, it refuses to decorate; the
    function then is compiled anew in each process.

    Numba notices a change of the kernel's own file only, not of a helper that lives in another file: keep
    kernels and their helpers together.

    Args:
        parallel: Run its `prange` loops on several threads.
        fastmath: LLVM's fast-math flags: all, none, or those named.
    """

    def decorate(function: Callable) -> Any:
        flags = fastmath if isinstance(fastmath, bool) else set(fastmath)
        options: dict[str, Any] = {
            "parallel": parallel, "fastmath": flags, "nogil": True, "error_model": "numpy"
        }  # fmt: skip
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function ...: no locator available"
            return numba.njit(cache=False, **options)(function)

    return decorate


def compiled_before(kernel: Any) -> bool:
    """Whether a kernel's machine code is in memory or on the disk, so that calling it takes no time to compile."""
    code, folder = kernel.py_func.__code__, kernel.stats.cache_path
    if kernel.signatures or folder is None:
        return bool(kernel.signatures)
    name = f"{Path(code.co_filename).stem}.{kernel.py_func.__qualname__}-{code.co_firstlineno}."
    return any(path.name.startswith(name) for path in Path(folder).glob("*.nbi"))
