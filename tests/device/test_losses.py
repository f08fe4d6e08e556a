"""Losses on a pretended CUDA device."""

from __future__ import annotations

import torch

from edit3dgs_ns.splats import losses
from tests.device.pretend_cuda import pretend_cuda, value_of


def test_ssim_gives_both_images_the_gradients_that_it_gives_on_the_cpu() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 20, 17, 3, generator=generator).unbind()
    on_cpu = [image.clone().requires_grad_() for image in images]
    expected = torch.autograd.grad(losses.ssim(*on_cpu), on_cpu)
    with pretend_cuda():
        on_cuda = [image.to("cuda").requires_grad_() for image in images]
        value = losses.ssim(*on_cuda)
        assert value.device.type == "cuda"
        value.backward()
        for got, wanted in zip((image.grad for image in on_cuda), expected, strict=True):
            scale = wanted.abs().max()
            torch.testing.assert_close(value_of(got) / scale, wanted / scale, rtol=1e-3, atol=1e-4)
