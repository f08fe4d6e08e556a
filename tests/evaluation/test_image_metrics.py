"""PSNR, SSIM and the change of an edit, against what can be worked out by hand or by another library."""

from __future__ import annotations

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from edit3dgs_ns.evaluation.image_metrics import image_quality, mean_change, psnr

RNG = np.random.default_rng(3)


def image(height: int = 40, width: int = 48) -> np.ndarray:
    coarse = RNG.random((height // 8, width // 8, 3)).astype(np.float32)
    return np.kron(coarse, np.ones((8, 8, 1), np.float32))


def test_psnr_of_a_constant_offset() -> None:
    a = np.full((5, 6, 3), 0.25, np.float32)
    assert psnr(a, a + np.float32(0.1)) == pytest.approx(20.0, abs=1e-4)
    assert psnr(a, a) == float("inf")


def test_quality_is_the_mean_over_images_not_over_pixels() -> None:
    a = np.zeros((16, 16, 3), np.float32)
    pairs = [(a, a + np.float32(0.1)), (a, a + np.float32(0.01))]
    assert image_quality(pairs).psnr == pytest.approx(30.0, abs=1e-3)


def test_ssim_agrees_with_scikit_image() -> None:
    truth = image()
    render = np.clip(truth + RNG.normal(0, 0.05, truth.shape), 0, 1).astype(np.float32)
    options = {"channel_axis": 2, "data_range": 1.0, "gaussian_weights": True, "use_sample_covariance": False}
    # scikit-image's own mean leaves the border out; torchmetrics counts it, mirrored a little differently.
    oracle = structural_similarity(render, truth, full=True, **options)[1].mean()
    assert image_quality([(render, truth)]).ssim == pytest.approx(oracle, abs=0.002)
    assert image_quality([(truth, truth)]).ssim == pytest.approx(1.0, abs=1e-4)


def test_change_counts_each_side_of_the_mask_alone() -> None:
    before = np.ones((2, 10, 10, 3), np.float32)
    head = np.zeros((2, 10, 10), bool)
    head[:, 2:6, 3:9] = True
    after = before.copy()
    after[head] -= 0.2
    after[0, 0, 0] -= 0.5
    change = mean_change(before, after, head)
    assert change.on_head == pytest.approx(0.2, abs=1e-6)
    assert change.on_background == pytest.approx(0.5 / (~head).sum(), abs=1e-6)


def test_wrong_input_is_refused() -> None:
    a = np.zeros((1, 4, 4, 3), np.float32)
    with pytest.raises(ValueError, match="no images"):
        image_quality([])
    with pytest.raises(ValueError, match="image 0"):
        image_quality([(a[0], a[0, :2])])
    with pytest.raises(ValueError, match="Shapes differ"):
        mean_change(a, a, np.ones((1, 2, 2), bool))
    with pytest.raises(ValueError, match="both head and background"):
        mean_change(a, a, np.ones((1, 4, 4), bool))
