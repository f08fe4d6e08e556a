"""SSIM against an independent implementation, its gradient against finite differences; the binding losses by hand."""

from __future__ import annotations

import pytest
import torch
from pytorch_msssim import ssim as independent_ssim

from edit3dgs_ns.splats import losses
from edit3dgs_ns.splats.views import viewmats_from_c2w


def _pair(views: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(views, height, width, 3, generator=generator)
    return a, (a + 0.2 * torch.randn(a.shape, generator=generator)).clamp(0, 1)


def _independent(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return independent_ssim(a.permute(0, 3, 1, 2), b.permute(0, 3, 1, 2), data_range=1.0)


@pytest.mark.parametrize(("views", "height", "width"), [(1, 32, 32), (3, 20, 41), (1, 11, 12)])
def test_ssim_matches_an_independent_implementation(views: int, height: int, width: int) -> None:
    a, b = _pair(views, height, width)
    expected = _independent(a.double(), b.double()).item()
    assert losses.ssim(a.double(), b.double()).item() == pytest.approx(expected, abs=1e-7)
    assert losses.ssim(a, b).item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("views", "height", "width"), [(2, 24, 17), (1, 11, 11)])
def test_ssim_gradients_match_an_independent_implementation(views: int, height: int, width: int) -> None:
    images = _pair(views, height, width)
    exact = [image.double().requires_grad_() for image in images]
    expected = torch.autograd.grad(3 * _independent(*exact), exact)
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        mine = [image.to(dtype).requires_grad_() for image in images]
        found = torch.autograd.grad(3 * losses.ssim(*mine), mine)
        for got, wanted in zip(found, expected, strict=True):
            scale = wanted.abs().max()
            torch.testing.assert_close(
                got.double() / scale, wanted / scale, rtol=tolerance, atol=0.1 * tolerance
            )


@pytest.mark.parametrize("trained", [(True, True), (True, False), (False, True)])
def test_ssim_gradcheck(trained: tuple[bool, bool]) -> None:
    images = [
        image.double().requires_grad_(train) for image, train in zip(_pair(1, 12, 13), trained, strict=True)
    ]
    assert torch.autograd.gradcheck(losses.ssim, images, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ssim_is_the_same_on_cuda() -> None:
    images = _pair(2, 40, 33)
    results = []
    for device in ("cpu", "cuda"):
        there = [image.to(device, copy=True).requires_grad_() for image in images]
        value = losses.ssim(*there)
        results.append([x.cpu() for x in (value.detach(), *torch.autograd.grad(value, there))])
    for mine, theirs in zip(*results, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5 * float(theirs.abs().max()))


def test_image_loss_is_zero_for_equal_images_and_mixes_its_terms() -> None:
    a, b = _pair(2, 16, 16)
    assert losses.image_loss(a, a, 0.2).item() == pytest.approx(0, abs=1e-6)
    expected = 0.8 * (a - b).abs().mean() + 0.2 * (1 - losses.ssim(a, b))
    assert losses.image_loss(a, b, 0.2).item() == pytest.approx(expected.item(), abs=1e-6)


def test_tiny_images_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="11 x 11"):
        losses.ssim(*_pair(1, 8, 30))


def test_binding_losses_by_hand() -> None:
    means = torch.tensor([[0.5, 0, 0], [9.0, 9.0, 9.0], [0, 3.0, 4.0]])  # distances 0.5 and 5
    scales = torch.log(torch.tensor([[0.1, 0.5, 0.6], [9.0, 9.0, 9.0], [0.6, 3.6, 4.6]]))
    visible = torch.tensor([True, False, True])
    distance, size = losses.binding_losses(means, scales, visible, 1.0, 0.6)
    assert distance.item() == pytest.approx((0 + 4) / 2)
    assert size.item() == pytest.approx((0 + 5) / 2, rel=1e-4)
    assert losses.binding_losses(means, scales, ~visible & visible, 1.0, 0.6) == (0, 0)
    nothing = torch.zeros(0, 3, requires_grad=True)
    assert losses.binding_losses(nothing, nothing, torch.zeros(0, dtype=torch.bool), 1.0, 0.6) == (0, 0)


def test_gradients_of_binding_losses() -> None:
    generator = torch.Generator().manual_seed(3)
    means, scales = (torch.randn(20, 3, generator=generator).double().requires_grad_() for _ in range(2))
    visible = torch.rand(20, generator=generator) > 0.3
    assert torch.autograd.gradcheck(lambda *x: losses.binding_losses(*x, visible, 1.0, 0.6), (means, scales))
    at_centre = torch.zeros(2, 3, requires_grad=True)
    sum(losses.binding_losses(at_centre, at_centre, torch.ones(2, dtype=torch.bool), 0.0, 1.0)).backward()
    assert (at_centre.grad == 0).all(), "no NaN where distance or excess is 0"


def test_viewmats_put_points_in_front_of_opencv_cameras() -> None:
    c2w = torch.eye(4)[None].clone()
    c2w[0, :3, 3] = torch.tensor([1.0, 2.0, 3.0])
    camera_from_world = viewmats_from_c2w(c2w)[0]
    ahead_right_up = torch.tensor([1.1, 2.2, 2.5, 1.0])  # OpenGL: looks along -z
    torch.testing.assert_close(camera_from_world @ ahead_right_up, torch.tensor([0.1, -0.2, 0.5, 1.0]))
    torch.testing.assert_close(viewmats_from_c2w(c2w[:, :3]), viewmats_from_c2w(c2w))


def test_what_is_drawn_over_white_costs_its_alpha() -> None:
    """Two of six pixels show nothing; a channel below white is enough to show something."""
    target = torch.ones(1, 2, 3, 3)
    target[0, 0], target[0, 1, 0, 2] = 0.5, 253 / 255
    alpha = torch.tensor([[[0.9, 0.8, 0.7], [0.6, 0.5, 0.25]]])[..., None].requires_grad_()
    loss = losses.background_loss(alpha, target)
    assert float(loss) == pytest.approx((0.5 + 0.25) / 6)
    (gradient,) = torch.autograd.grad(loss, alpha)
    assert gradient[0, ..., 0].count_nonzero() == 2
