"""What images add to landmarks: contrast that the light leaves alone, and its derivatives for the parameters of a head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edit3dgs_ns.flame.loading import load_assets
from edit3dgs_ns.tracking.banded import SequenceSystem
from edit3dgs_ns.tracking.landmark_table import load_landmark_table
from edit3dgs_ns.tracking.photometric import (
    PATCH,
    FaceImages,
    FaceSamples,
    PhotometricTerm,
    local_contrast,
    robust_mean,
)
from edit3dgs_ns.tracking.surface_points import JAW, NECK, NUM_POSE, TRANSLATION

HEAD = load_assets()
FOCAL, FRAMES = 500.0, 4


@pytest.fixture(scope="module")
def samples() -> FaceSamples:
    table = load_landmark_table(HEAD)
    places = np.einsum("lk,lkc->lc", table.barycentric, HEAD.v_template[HEAD.faces[table.faces]])
    return FaceSamples.of(HEAD, places)


def waves(shift: torch.Tensor) -> FaceImages:
    """The same smooth texture in every frame, moved to the right by `shift` pixels."""
    y, x = torch.meshgrid(torch.arange(PATCH) + 0.5, torch.arange(PATCH) + 0.5, indexing="ij")
    moved = x[None] - shift[:, None, None]
    patches = torch.sin(moved / 9) * torch.cos(y / 11) + 0.5 * torch.sin((moved + 2 * y) / 17)
    return FaceImages(patches, torch.zeros(len(shift), 2, dtype=torch.int64), 1.0)


def parameters() -> tuple[torch.Tensor, torch.Tensor]:
    frames = torch.zeros(FRAMES, NUM_POSE + HEAD.exprdirs.shape[2])
    frames[:, TRANSLATION.stop - 1] = -0.9
    frames[:, NECK.start + 1] = torch.linspace(-0.2, 0.2, FRAMES)
    return torch.zeros(HEAD.shapedirs.shape[2]), frames


def term(samples: FaceSamples, shift: torch.Tensor) -> PhotometricTerm:
    center = torch.tensor([PATCH / 2, PATCH / 2]).double()
    return PhotometricTerm(waves(shift), samples, center, torch.ones(len(shift), dtype=torch.bool))


def test_samples_lie_on_the_skin_of_the_face(samples: FaceSamples) -> None:
    rest = samples.points.positions(torch.zeros(HEAD.shapedirs.shape[2]), parameters()[1][:1] * 0)[0].numpy()
    eyes = HEAD.v_template[HEAD.vertex_regions["eyes"]]
    inside = HEAD.v_template[np.concatenate([HEAD.vertex_regions[n] for n in ("teeth", "tongue", "gums")])]
    skin = HEAD.v_template[HEAD.vertex_regions["skin"]]

    def away(vertices: np.ndarray) -> np.ndarray:
        return np.linalg.norm(rest[:, None] - vertices[None], axis=-1).min(1)

    assert (away(skin) < np.minimum(away(eyes), away(inside)) + 0.002).mean() > 0.98
    assert np.ptp(rest[:, 0]) > 0.1 and np.ptp(rest[:, 1]) > 0.13, "all over the face"


def test_derivatives_are_the_differences_of_what_is_seen(samples: FaceSamples) -> None:
    seen_by = term(samples, torch.zeros(FRAMES))
    shape, frames = parameters()
    every = torch.arange(FRAMES)
    look = seen_by._look(every, frames, shape, FOCAL)
    by_frame, by_shared = look.derivatives(torch.ones_like(look.value))

    def difference(column: int, step: float) -> torch.Tensor:
        moved = [frames.clone(), frames.clone()]
        moved[0][:, column] -= step
        moved[1][:, column] += step
        low, high = (seen_by._look(every, rows, shape, FOCAL).value for rows in moved)
        return (high - low) / (2 * step)

    columns = {NECK.start: 0.01, NECK.start + 1: 0.01, TRANSLATION.start: 1e-3, TRANSLATION.stop - 1: 1e-2}
    columns |= {JAW.start: 0.02, NUM_POSE + HEAD.expression_index("mouthSmileLeft"): 0.1}
    scale = by_frame[..., 0].abs().mean()  # any: derivatives are in units of `SPREAD`
    assert scale > 0
    ratios = []
    for column, step in columns.items():
        expected, found = difference(column, step), by_frame[..., column]
        ratios.append(float((found * expected).sum() / (expected * expected).sum()))
        assert np.corrcoef(found.flatten(), expected.flatten())[0, 1] > 0.99
    assert max(ratios) < 1.03 * min(ratios), "all in the same units"
    moved = [seen_by._look(every, frames, shape, FOCAL * np.exp(by)).value for by in (-0.005, 0.005)]
    assert np.corrcoef(by_shared[..., -1].flatten(), (moved[1] - moved[0]).flatten())[0, 1] > 0.99


def test_a_step_follows_the_texture(samples: FaceSamples) -> None:
    """One frame's texture is a pixel and a half to the right: the head goes there, by the same metres."""
    shift = torch.tensor([0.0, 0.0, 1.5, 0.0])
    seen_by = term(samples, shift)
    shape, frames = parameters()
    frames[:, NECK] = 0
    for _ in range(4):
        system = SequenceSystem.zeros(FRAMES, frames.shape[1], len(shape) + 1)
        seen_by.add_to(system, frames.double(), shape.double(), float(np.log(FOCAL)))
        column = TRANSLATION.start
        step = system.right_frames[:, column] / system.blocks[:, column, column]
        frames[:, column] += torch.from_numpy(step).float()
    depth = 0.9 - float(samples.points.template.sum(1)[:, 2].mean())
    found = (frames[:, TRANSLATION.start] - frames[0, TRANSLATION.start]) * FOCAL / depth
    assert found[2] == pytest.approx(1.5, abs=0.25) and found[[1, 3]].abs().max() < 0.1


def test_the_light_hardly_changes_contrast() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(rng.integers(60, 180, (96, 96, 1), dtype=np.uint8), 3, axis=2)
    ramp = np.linspace(0.6, 1.3, 96)[None, :, None]
    lit = np.rint(image * ramp + 8).clip(0, 255).astype(np.uint8)
    plain, other = local_contrast(image), local_contrast(lit)
    assert np.corrcoef(plain.ravel(), other.ravel())[0, 1] > 0.98
    assert abs(other.std() / plain.std() - 1) < 0.1


def test_images_are_sampled_at_pixel_centres_and_nowhere_else() -> None:
    rng = np.random.default_rng(1)
    images = [np.repeat(rng.integers(0, 255, (60, 80, 1), dtype=np.uint8), 3, axis=2) for _ in range(2)]
    landmarks = np.array([[[20.0, 20.0], [40.0, 50.0]], [[30.0, 10.0], [60.0, 40.0]]])
    faces = FaceImages.of(images, landmarks, eye_distance=40.0)
    pixels = torch.tensor([[[10.5, 20.5], [78.5, 58.5], [300.0, 20.0]]]).double().expand(2, -1, -1)
    found = faces.sampled(torch.arange(2), pixels)
    for t, image in enumerate(images):
        contrast = local_contrast(image)
        expected = [contrast[20, 10], contrast[58, 78]]
        np.testing.assert_allclose(found[t, :2, 0], expected, atol=2e-3)  # kept in 16 bits
    assert found[:, 2].isnan().all()


def test_a_frame_that_differs_hardly_moves_the_mean() -> None:
    value = torch.tensor([[0.5], [0.55], [0.45], [0.5], [2.9]])
    weight = torch.ones(5, 1)
    assert robust_mean(value, weight)[0] == pytest.approx(0.5, abs=0.05)
    weight[:] = 0
    assert robust_mean(value, weight)[0] == 0
