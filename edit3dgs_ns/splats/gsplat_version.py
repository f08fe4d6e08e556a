"""Which releases of gsplat are supported: 1.4, the one that Nerfstudio 1.1.5 pins.

The CPU rasterizer mirrors it: a Gaussian reaches 3 standard deviations of its largest axis, the same in x and y. gsplat 1.5
cuts off where the opacity falls below 1/255 and keeps one radius for each axis (its pull request 597), so that images,
`info["radii"]` and what densification makes of them would differ between CUDA and the CPU.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import version

from edit3dgs_ns.errors import UserError

SUPPORTED = "1.4"
"""Major and minor version; pyproject.toml and constraints.txt say the same."""


@cache
def check_gsplat() -> None:
    """Does nothing with a supported gsplat.

    Raises:
        UserError: another version is installed.
    """
    installed = version("gsplat")
    if installed.split(".")[:2] != SUPPORTED.split("."):
        raise UserError(
            f"gsplat {installed} is installed; expected {SUPPORTED}, which Nerfstudio 1.1.5 requires and the CPU rasterizer "
            f'mirrors: pip install "gsplat=={SUPPORTED}.*"'
        )
