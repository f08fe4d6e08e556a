"""The rig of a web page: what turns a pose into vertices, and the poses over time.

The page does what `flame.model.ShapedHead.posed` does: blend shapes, pose correctives, the joints' chain, linear blend skinning,
translation. The identity is applied already, and joints are linear in the expression, so that the page needs neither shape
directions nor the joint regressor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float, Int

from edit3dgs_ns.web.packing import Quantised, exact, indices, quantise

DIRECTION_STEP = 5e-7
"""Metres per unit of a coefficient: rounding errors of 100 coefficients stay below ten micrometres."""
CORRECTIVE_STEP = 1e-6
"""Metres per entry of a rotation matrix."""
WEIGHT_STEP = 1 / 32767


@dataclass(frozen=True)
class WebRig:
    """A head of one identity. Metres; joints: global, neck, jaw, left eye, right eye."""

    vertices: Float[np.ndarray, "vertices 3"]
    """At rest."""
    faces: Int[np.ndarray, "faces 3"]
    directions: Float[np.ndarray, "coefficients vertices 3"]
    """Displacement per unit of each expression coefficient."""
    correctives: Float[np.ndarray, "entries vertices 3"]
    """Displacement per entry of the joints' rotation matrices minus identity, row by row, without the global joint; 36 or 0."""
    weights: Float[np.ndarray, "vertices joints"]
    """Skinning weights; rows sum to 1."""
    joints: Float[np.ndarray, "joints 3"]
    """At rest."""
    joint_directions: Float[np.ndarray, "coefficients joints 3"]
    """Displacement of the joints per unit of each expression coefficient."""
    parents: tuple[int, ...]
    """-1 for the root, which is the first."""
    normals: Float[np.ndarray, "faces 3"]
    """Of the faces at rest."""
    names: tuple[str, ...] | None
    """Of the expression coefficients, where they have names (the open head: ARKit's)."""
    action_expr: Float[np.ndarray, "actions coefficients"]
    """Expression of each of ARKit's actions done in full; 52 or, where the head knows none, 0."""
    action_jaw: Float[np.ndarray, "actions 3"]
    """Rotation of the jaw in each of them, axis-angle, radians."""

    def arrays(self) -> dict[str, Quantised]:
        """As they are stored."""
        return {
            "rest": exact(self.vertices),
            "faces": indices(self.faces),
            "directions": quantise(self.directions, DIRECTION_STEP),
            "correctives": quantise(self.correctives, CORRECTIVE_STEP),
            "weights": quantise(self.weights, WEIGHT_STEP),
            "joints": exact(self.joints),
            "joint_directions": exact(self.joint_directions),
            "normals": quantise(self.normals, 1 / 32767),
            "action_expr": exact(self.action_expr),
            "action_jaw": exact(self.action_jaw),
        }

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, Quantised], parents: tuple[int, ...], names: tuple[str, ...] | None
    ) -> WebRig:
        """What `arrays` has stored."""
        stored = {name: arrays[name].restored() for name in arrays}
        return cls(
            vertices=stored["rest"],
            faces=arrays["faces"].values.astype(np.int64),
            directions=stored["directions"],
            correctives=stored["correctives"],
            weights=stored["weights"],
            joints=stored["joints"],
            joint_directions=stored["joint_directions"],
            parents=parents,
            normals=stored["normals"],
            names=names,
            action_expr=stored["action_expr"],
            action_jaw=stored["action_jaw"],
        )


@dataclass(frozen=True)
class WebMotion:
    """Poses over time, by the names of `flame.model.FlamePose`: rotations axis-angle in radians, translation in metres."""

    expr: Float[np.ndarray, "frames coefficients"]
    rotation: Float[np.ndarray, "frames 3"]
    neck_pose: Float[np.ndarray, "frames 3"]
    jaw_pose: Float[np.ndarray, "frames 3"]
    eyes_pose: Float[np.ndarray, "frames 6"]
    translation: Float[np.ndarray, "frames 3"]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.translation)

    def arrays(self) -> dict[str, Quantised]:
        """As they are stored."""
        return {field.name: exact(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Quantised]) -> WebMotion:
        """What `arrays` has stored."""
        return cls(**{field.name: arrays[field.name].restored() for field in fields(cls)})
