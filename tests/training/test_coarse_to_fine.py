"""Training that begins with halved images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nerfstudio.cameras.cameras import Cameras
from torch.nn import functional as F

from edit3dgs_ns.training import compiling
from edit3dgs_ns.training.coarse_to_fine import short_training_advice

HEIGHT, WIDTH = 65, 82


@pytest.fixture(scope="module")
def avatar() -> Any:
    model = compiling.open_head_avatar()
    model.config.num_downscales, model.config.resolution_schedule = 1, 10
    with torch.no_grad():
        model.gauss_params["opacities"].fill_(4)
    return model


@pytest.fixture
def camera() -> Cameras:
    c2w = torch.eye(4)[:3]
    c2w[2, 3] = 0.8
    return Cameras(c2w[None], 150.0, 150.0, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT, times=torch.zeros(1, 1))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(HEIGHT, WIDTH, 3, generator=torch.Generator().manual_seed(1))


def _sizes(avatar: Any, camera: Cameras, image: torch.Tensor, step: int) -> list[tuple[int, ...]]:
    avatar.step = step
    return [tuple(avatar.get_outputs(camera)["rgb"].shape[1:3]), tuple(avatar.get_gt_img(image).shape[:2])]


def test_a_halved_camera_shows_what_a_halved_image_does(avatar, camera):
    avatar.step = 10
    whole = avatar.get_outputs(camera)["rgb"].detach()
    avatar.step = 9
    half = avatar.get_outputs(camera)["rgb"].detach()
    expected = F.avg_pool2d(whole.movedim(-1, 1), 2).movedim(1, -1)
    aligned = (half - expected).abs().mean()
    for axis in (1, 2):
        one, other = ((half - expected.roll(by, dims=axis)).abs().mean() for by in (1, -1))
        assert 2 * aligned < min(one, other)
        assert 0.85 < one / other < 1.18, (
            axis,
            one,
            other,
        )  # 1.7 where half a pixel of the whole image is lost


def test_images_are_whole_after_the_schedule_for_edits_and_outside_training(avatar, camera, image):
    half, whole = [(32, 41)] * 2, [(HEIGHT, WIDTH)] * 2
    assert _sizes(avatar, camera, image, 0) == _sizes(avatar, camera, image, 9) == half
    assert _sizes(avatar, camera, image, 10) == whole
    avatar.use_image_loss(lambda rendered, target: (rendered - target).abs().mean())
    assert _sizes(avatar, camera, image, 0) == whole
    avatar.use_image_loss(None)
    avatar.eval()
    assert tuple(avatar.get_outputs(camera)["rgb"].shape[:2]) == tuple(avatar.get_gt_img(image).shape[:2])
    avatar.train()


@pytest.mark.parametrize(("steps", "said"), [(5, True), (10, True), (11, False)])
def test_a_training_that_never_sees_whole_images_is_told(avatar, steps, said):
    advice = short_training_advice(steps, avatar.config)
    assert (advice is not None) == said and (not said or "num-downscales 0" in advice)
