"""The most memory that this process has used so far."""

from __future__ import annotations

import sys

import torch


def peak_memory_gb(device: torch.device | str) -> float:
    """Gigabytes (1e9 bytes): of tensors on a CUDA device, elsewhere of the whole process in main memory; 0 where nobody says."""
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.is_available():
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows has none
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS (getrusage(2) of each).
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
