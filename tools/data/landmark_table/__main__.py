"""Writes `edit3dgs_ns/tracking/data/open_head_landmarks.npz`: ten minutes on two cores, half of them for the solution.

python -m tools.data.landmark_table
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.landmark_table import OPEN_HEAD_TABLE
from tools.data.landmark_table.renders import collect
from tools.data.landmark_table.solve import solve


def main() -> None:
    """Render, detect, solve, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=193)
    parser.add_argument("--views", type=int, default=4, help="renders of each person")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=OPEN_HEAD_TABLE)
    options = parser.parse_args()
    head = load_assets(OPEN_HEAD_PATH)
    detections = collect(options.people, options.views, options.workers)
    table = solve(head, detections, options.out)
    with written_beside(options.out) as partial, partial.open("wb") as file:
        table.save(file, head)
    spread = np.percentile(1000 * table.spread, (5, 50, 95))
    print(
        f"{len(detections)} renders; spread of the landmarks {spread[0]:.1f}, {spread[1]:.1f}, {spread[2]:.1f} mm (5, 50, 95 %)"
    )


if __name__ == "__main__":
    main()
