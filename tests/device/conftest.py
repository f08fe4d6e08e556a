"""A CUDA device and gsplat, pretended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import gsplat
import pytest
from torch._subclasses.fake_tensor import unset_fake_temporarily

from edit3dgs_ns.editing.diffusion import loading
from tests.device.pretend_cuda import pretend_cuda
from tests.device.stand_in_gsplat import StandInGsplat

_really_read_pipeline = loading._read_pipeline


def _read_pipeline(*args: Any) -> Any:
    """Models are read into main memory first; transformers' reader takes no fake tensors."""
    with unset_fake_temporarily():
        return _really_read_pipeline(*args)


@pytest.fixture(scope="session")
def cuda_with_gsplat() -> Callable[..., AbstractContextManager[StandInGsplat]]:
    """Inside of `cuda_with_gsplat()` there are a CUDA device and gsplat."""

    @contextmanager
    def enter() -> Iterator[StandInGsplat]:
        stand_in = StandInGsplat()
        with (
            patch.object(gsplat, "rasterization", stand_in.rasterization),
            patch.object(gsplat, "spherical_harmonics", stand_in.spherical_harmonics),
            patch.object(loading, "check_device"),  # asks the driver
            patch.object(loading, "_read_pipeline", _read_pipeline),
            pretend_cuda(),
        ):
            yield stand_in

    return enter
