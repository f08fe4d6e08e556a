"""Edits of expression against their truth: `python -m tools.measure.form.expression`; writes "expression" into outputs/form.json.

The editor returns the true edited images; what is compared is the head that the avatar makes of them, with that of the truth.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.files import write_durably
from edit3dgs_ns.flame.expression_offset import ExpressionOffset
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.runs.trained_run import TrainedRun
from edit3dgs_ns.splats.rig import POSE_PARAMETERS, TrackedHead
from edit3dgs_ns.synthetic.expression_edits import EXPRESSION_EDITS
from edit3dgs_ns.tracking.landmark_table import load_landmark_table
from tools.measure.ablation.training import train
from tools.measure.form.true_editor import VARIABLE
from tools.measure.tracking.errors import lid_openings

REGIONS = ("lips", "brows")


def figures_of(run: TrainedRun, edit: str) -> dict[str, Any]:
    """Figures of an edited avatar.

    Returns:
        displacement_error: of the resting lips and brows, as a share of the true displacement; also of each, where the edit
            moves it by half a millimetre. jaw_correlation: of the opening that is shown with the motion's. lids_closed_mm: between
            the lids in a full blink; lids_closed_unedited_mm: without the edit.
    """
    head, assets = run.pipeline.model.head, run.head
    names = assets.expression_names
    assert names is not None
    own, true = head.offset, ExpressionOffset.of_actions(EXPRESSION_EDITS[edit].actions, names)
    rest, wanted, found = (_resting(head, offset) for offset in (None, true, own))
    index = {name: assets.vertex_regions[name] for name in REGIONS}
    index["all"] = np.concatenate(list(index.values()))
    errors = {name: _share(found - wanted, wanted - rest, rows) for name, rows in index.items()}
    motion = head.motion().pose()
    jaws = [pose.jaw_pose[:, 0].cpu().numpy() for pose in (motion, head.under_offset(motion))]
    table = load_landmark_table(assets)
    lids = [lid_openings(assets, table, _resting(head, offset, names)[None]) for offset in (own, None)]
    return {
        "prompt": EXPRESSION_EDITS[edit].instructions[0],
        "displacement_error": errors["all"],
        **{f"displacement_error_{name}": errors[name] for name in REGIONS},
        "jaw_correlation": round(float(np.corrcoef(*jaws)[0, 1]), 4),
        "lids_closed_mm": round(1000 * float(lids[0].mean()), 2),
        "lids_closed_unedited_mm": round(1000 * float(lids[1].mean()), 2),
    }


@torch.no_grad()
def _resting(
    head: TrackedHead, offset: ExpressionOffset | None, blinking: tuple[str, ...] = ()
) -> Float[np.ndarray, "vertices 3"]:
    """The resting head under an offset, metres; with both eyes shut where the names of the coefficients are given."""
    own = head.offset
    rows = {name: torch.zeros_like(head.pose[name][:1]) for name in POSE_PARAMETERS}
    for name in ("eyeBlinkLeft", "eyeBlinkRight") if blinking else ():
        rows["expr"][0, blinking.index(name)] = 1.0
    head.set_offset(offset)
    vertices: np.ndarray = head.vertices_of(FlamePose(**rows)).cpu().numpy()
    head.set_offset(own)
    return vertices


def _share(error: np.ndarray, whole: np.ndarray, rows: np.ndarray) -> float | None:
    if np.linalg.norm(whole[rows], axis=1).mean() < 0.5e-3:
        return None
    return round(float(np.linalg.norm(error[rows]) / np.linalg.norm(whole[rows])), 3)


def main(argv: list[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="combined data set of a synthetic capture")
    parser.add_argument("--avatar", type=Path, required=True, help="run of its avatar")
    parser.add_argument("--out", type=Path, default=Path("outputs/form.json"))
    parser.add_argument("--folder", type=Path, default=Path("outputs/form"), help="gets the runs")
    parser.add_argument("--edits", nargs="*", default=list(EXPRESSION_EDITS))
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--edit-every", type=int, default=50)
    parser.add_argument("--final-steps", type=int, default=200)
    args = parser.parse_args(argv)
    rows = []
    for edit in args.edits:
        rows.append(figures_of(TrainedRun(_edited(args, edit) / "config.yml"), edit))
        print(json.dumps(rows[-1]), flush=True)
    former = json.loads(args.out.read_text(encoding="utf-8")) if args.out.is_file() else {}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_durably(args.out, (json.dumps(former | {"expression": rows}, indent=1) + "\n").encode())


def _edited(args: argparse.Namespace, edit: str) -> Path:
    """The run's folder; it is edited unless that is done."""
    data = args.data.resolve()
    os.environ[VARIABLE] = f"{edit}@{data}"
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[3])
    flags = [
        "--prompt", EXPRESSION_EDITS[edit].instructions[0], "--pipeline.avatar", str(args.avatar),
        "--pipeline.editor.model", "python:tools.measure.form.true_editor:make",
        "--pipeline.editor.correspondence", "none", "--pipeline.judge", "False",
        "--pipeline.rounds", str(args.rounds), "--pipeline.edit-every", str(args.edit_every),
        "--pipeline.final-steps", str(args.final_steps),
    ]  # fmt: skip
    return train(args.folder / edit, data, flags, args.rounds * args.edit_every + args.final_steps)


if __name__ == "__main__":
    main()
