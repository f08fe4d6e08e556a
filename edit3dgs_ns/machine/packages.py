"""Checks of installed packages against the versions that are tested together."""

from __future__ import annotations

import importlib.metadata
import sys

from edit3dgs_ns.machine.finding import Finding

TESTED_VERSIONS = {
    "torch": "2.14.1",
    "torchvision": "0.29.1",
    "nerfstudio": "1.1.5",
    "gsplat": "1.4.0",
    "diffusers": "0.39.0",
    "transformers": "4.57.6",
    "accelerate": "1.15.0",
    "numba": "0.68.1",
    "numpy": "1.26.4",
    "trimesh": "5.2.0",
    "embreex": "4.4.0.post1",
    "av": "18.1.0" if sys.version_info >= (3, 11) else "17.1.0",
    "torchmetrics": "1.9.0",
}
"""The lines of constraints.txt that matter here. An installed package has no constraints.txt beside it, so
they are repeated; a test holds the two equal."""
MASK_VERSIONS = {"sam2": "1.1.0", "groundingdino-py": "0.4.0"}
"""The same for what only masks from words need."""
TRACKING_VERSIONS = {"mediapipe": "0.10.21", "protobuf": "4.25.9"}
"""What only `edit3dgs track` needs. MediaPipe's later wheels hold no models, and its graphs do not start with protobuf 3.20."""

TESTED_SET = "If something fails, install the tested set: pip install -c constraints.txt -e ."


def check_packages() -> list[Finding]:
    """Installed versions against `TESTED_VERSIONS`, `MASK_VERSIONS` and `TRACKING_VERSIONS`."""
    from edit3dgs_ns.editing.masks.grounded_sam_options import GROUNDINGDINO_INSTALL, SAM2_INSTALL
    from edit3dgs_ns.tracking.mediapipe_install import MEDIAPIPE_INSTALL

    needed = [_package(name, tested, "Run: make setup") for name, tested in TESTED_VERSIONS.items()]
    words = "For --pipeline.masks grounded-sam"
    installs = {
        "sam2": f"{words}: {SAM2_INSTALL}",
        "groundingdino-py": f"{words} with --pipeline.grounded-sam.detector-backend groundingdino: "
        f"{GROUNDINGDINO_INSTALL}",
    }
    masks = [_package(name, tested, installs[name], required=False) for name, tested in MASK_VERSIONS.items()]
    tracking = f"For edit3dgs track: {MEDIAPIPE_INSTALL} (pip warns: Nerfstudio asks for an older protobuf, and runs with this)"
    return [
        *needed,
        *masks,
        *(_package(name, tested, tracking, required=False) for name, tested in TRACKING_VERSIONS.items()),
    ]


def _package(name: str, tested: str, install: str, required: bool = True) -> Finding:
    try:
        installed = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("Packages", name, "missing", "not installed", install, required=required)
    # torch's local label (2.14.1+cpu) names the build, not another version.
    if installed.split("+")[0] == tested:
        return Finding("Packages", name, "ok", installed, required=required)
    advice = install if name in TRACKING_VERSIONS else TESTED_SET
    return Finding("Packages", name, "warn", f"{installed} (tested: {tested})", advice, required=required)
