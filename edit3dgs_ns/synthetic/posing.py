"""A person in one frame: where the vertices of head, hair and parts are, and what the rays carry away from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.synthetic import surface as sf
from edit3dgs_ns.synthetic.baking import BakedIdentity, vertex_normals
from edit3dgs_ns.synthetic.part import HeadMotion, Rigid, joint_rotations


@dataclass(frozen=True)
class Frame:
    """Expression and pose of one timestep, as in a capture's flame_param file; axis-angle in radians,
    metres.
    """

    expr: Float[np.ndarray, " e"]
    rotation: Float[np.ndarray, " 3"]
    neck_pose: Float[np.ndarray, " 3"]
    jaw_pose: Float[np.ndarray, " 3"]
    eyes_pose: Float[np.ndarray, " 6"]
    translation: Float[np.ndarray, " 3"]


def pose_vertices(baked: BakedIdentity, frame: Frame) -> Float[np.ndarray, "v 3"]:
    """World vertices of the head (without the locks) in one frame."""
    fields = ("expr", "rotation", "neck_pose", "jaw_pose", "eyes_pose", "translation")
    pose = FlamePose(
        **{name: torch.from_numpy(np.asarray(getattr(frame, name), np.float32)[None]) for name in fields}
    )
    with torch.no_grad():
        return baked.shaped.posed(pose)[0].numpy().astype(np.float64)


def head_motion(baked: BakedIdentity, frame: Frame) -> HeadMotion:
    """How a frame moves a person's head."""
    vertices, index = pose_vertices(baked, frame), baked.head.skull_vertices
    poses = np.concatenate([frame.rotation, frame.neck_pose, frame.jaw_pose, frame.eyes_pose]).reshape(-1, 3)
    joints = joint_rotations(baked.head.model.parents, poses)
    return HeadMotion(baked.head, baked.rest, vertices, Rigid.of(baked.rest[index], vertices[index]), joints)


def posed_attributes(
    baked: BakedIdentity, motion: HeadMotion
) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v a"]]:
    """World positions of head, hair and parts in this order, and the columns of `surface` that rays interpolate."""
    vertices = [motion.vertices, motion.of_hair(baked.hair.vertices, baked.hair.resting)]
    tables = [_head_table(baked, motion), _hair_table(baked, motion)]
    for part in baked.parts:
        places, normals, tangents = motion.of_part(part)
        vertices.append(places)
        tables.append(_strand_table(part, normals, tangents, new=True))
    world, table = np.concatenate(vertices), np.concatenate(tables)
    table[:, sf.POSITION] = world
    return world, table


def _head_table(baked: BakedIdentity, motion: HeadMotion) -> np.ndarray:
    table = np.zeros((len(motion.vertices), sf.COLUMNS), np.float32)
    table[:, sf.CANONICAL] = baked.head.assets.v_template
    table[:, sf.NORMAL] = vertex_normals(motion.vertices, baked.head.faces)
    table[:, 9:22] = baked.visibility
    table[:, sf.NEW] = baked.new
    return table


def _hair_table(baked: BakedIdentity, motion: HeadMotion) -> np.ndarray:
    hair, R = baked.hair, motion.skull.R.T
    return _strand_table(hair, hair.normals @ R, hair.tangents @ R, new=baked.new_hair)


def _strand_table(mesh, normals: np.ndarray, tangents: np.ndarray, new: bool) -> np.ndarray:
    """Columns of locks or of a part."""
    table = np.zeros((len(mesh.vertices), sf.COLUMNS), np.float32)
    table[:, sf.CANONICAL] = mesh.vertices
    table[:, sf.NORMAL], table[:, sf.TANGENT] = normals, tangents
    table[:, 9:22] = 1.0
    for column, values in (
        (sf.ACROSS, mesh.across),
        (sf.ALONG, mesh.along),
        (sf.LOCK, mesh.lock),
        (sf.LAYER, mesh.layer),
    ):
        table[:, column] = values
    table[:, sf.NEW] = new
    return table
