"""A head with hair, seen as masks alone: how thick the hair is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.rays import build_intersector, ray_directions
from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.flame.model import FlameModel
from edit3dgs_ns.flame.motion import FlameMotion
from edit3dgs_ns.flame.regions import region_vertices
from edit3dgs_ns.tracking.hair_offsets import MOST_FRAMES, chosen_timesteps, hair_offsets

HEAD = load_assets()
MODEL = FlameModel.from_assets(HEAD)
SIZE, TIMESTEPS, THICKNESS = 128, 3, 0.018
SCALP = region_vertices(HEAD, "scalp")
CAMERA = Camera.look_at((0.0, 0.0, 0.9), width=SIZE, height=SIZE, fov=30.0)


def turning(timesteps: int = TIMESTEPS) -> FlameMotion:
    """A head that turns to both sides."""
    motion = FlameMotion.zeros(timesteps, HEAD.shapedirs.shape[2], HEAD.exprdirs.shape[2])
    motion.rotation[:, 1] = torch.linspace(-0.4, 0.4, timesteps)
    return motion


def with_hair() -> np.ndarray:
    """Offsets of a scalp that is thicker all around: away from the neck's axis and up."""
    rays = HEAD.v_template[SCALP] * [1.0, 0.0, 1.0]
    rays = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    rays[:, 1] += 1.0
    offset = np.zeros_like(HEAD.v_template)
    offset[SCALP] = THICKNESS * rays / np.linalg.norm(rays, axis=1, keepdims=True)
    return offset


def silhouette(motion: FlameMotion, timestep: int, offset: np.ndarray, camera: Camera = CAMERA) -> np.ndarray:
    shaped = MODEL.shaped(motion.shape, torch.from_numpy(offset).float())
    vertices = shaped.posed(motion.pose([timestep]))[0].numpy()
    rays = ray_directions(camera, (0, 0, SIZE, SIZE), 1)
    origins = np.broadcast_to(camera.c2w[:3, 3].astype(np.float32), rays.shape).copy()
    hits = build_intersector(vertices, HEAD.faces).run(origins, rays, output=1)["primID"] >= 0
    return hits.reshape(SIZE, SIZE).astype(np.float32)


@pytest.fixture(scope="module")
def found() -> np.ndarray:
    motion = turning()
    masks = [silhouette(motion, t, with_hair()) for t in range(TIMESTEPS)]
    return hair_offsets(HEAD, motion, CAMERA, masks, range(TIMESTEPS))


def test_the_outline_is_that_of_the_hair(found: np.ndarray) -> None:
    motion = turning()
    for t in range(TIMESTEPS):
        hair, bald, fitted = (silhouette(motion, t, o) for o in (with_hair(), 0 * found, found))
        assert np.abs(fitted - hair).sum() < 0.3 * np.abs(bald - hair).sum()


def test_the_thickness_is_about_right_on_the_crown(found: np.ndarray) -> None:
    crown = SCALP[np.argsort(HEAD.v_template[SCALP, 1])[-20:]]
    assert np.linalg.norm(found[crown], axis=1).mean() == pytest.approx(THICKNESS, abs=0.004)


def test_the_back_that_no_outline_shows_has_hair_as_well(found: np.ndarray) -> None:
    back = SCALP[np.argsort(HEAD.v_template[SCALP, 2])[:20]]
    assert np.linalg.norm(found[back], axis=1).min() > 0.3 * THICKNESS


def test_the_middle_of_the_face_stays(found: np.ndarray) -> None:
    middle = region_vertices(HEAD, "nose", "lips", "eyes", "teeth")
    assert np.abs(found[middle]).max() == 0


def test_both_sides_are_alike(found: np.ndarray) -> None:
    """The head turns to both sides alike, and so do its masks."""
    distance = np.linalg.norm(HEAD.v_template[:, None] - HEAD.v_template[SCALP] * [-1, 1, 1], axis=-1)
    mirrored = found[distance.argmin(0)] * [-1, 1, 1]
    assert np.linalg.norm(mirrored - found[SCALP], axis=1).mean() < 0.002


def test_a_head_without_hair_gets_none() -> None:
    motion = turning()
    masks = [silhouette(motion, t, np.zeros_like(HEAD.v_template)) for t in range(TIMESTEPS)]
    offset = hair_offsets(HEAD, motion, CAMERA, masks, range(TIMESTEPS))
    assert np.linalg.norm(offset, axis=1).max() < 0.004


def test_masks_that_fill_the_image_say_nothing() -> None:
    masks = [np.ones((SIZE, SIZE), np.float32)] * TIMESTEPS
    assert np.abs(hair_offsets(HEAD, turning(), CAMERA, masks, range(TIMESTEPS))).max() < 1e-9


def test_a_head_model_without_named_parts_is_left_bald() -> None:
    nameless = dataclasses.replace(HEAD, vertex_regions={}, face_regions={})
    masks = [np.zeros((SIZE, SIZE), np.float32)]
    assert not hair_offsets(nameless, turning(), CAMERA, masks, [0]).any()


def test_the_frames_are_spread_over_the_turns() -> None:
    motion = turning(50)
    chosen = chosen_timesteps(motion)
    assert chosen[0] == 0 and chosen[-1] == 49 and len(chosen) == MOST_FRAMES
    assert chosen_timesteps(turning(2)) == [0, 1]
