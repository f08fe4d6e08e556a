"""Flicker and view disagreement of images whose motion is known exactly."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.evaluation.correspondence import PixelMatches, temporal_flicker, view_disagreement

HEIGHT, WIDTH, PIXEL = 40, 50, 0.001


def canonical_map(shift: float = 0.0) -> np.ndarray:
    """A flat patch that has moved `shift` pixels to the right; no surface in the outer columns."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    u = x - shift
    result = np.stack([PIXEL * u, PIXEL * y, 0.02 * np.sin(0.1 * u)], axis=-1)
    result[(u < 8) | (u >= 42)] = np.nan
    return result


def texture(shift: float = 0.0) -> np.ndarray:
    """Smooth paint on that patch."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    value = 0.5 + 0.3 * np.sin(0.35 * (x - shift)) * np.cos(0.25 * y)
    return np.stack([value, 1 - value, 0.5 * value], axis=-1).astype(np.float32)


@pytest.mark.parametrize("shift", [0.0, 3.0, -5.0])
def test_paint_that_moves_along_does_not_flicker(shift: float) -> None:
    matches = PixelMatches.between(canonical_map(shift), canonical_map())
    assert matches.difference(texture(shift), texture()) == pytest.approx(0, abs=1e-4)
    # Without the rig it would look like a change.
    assert shift == 0 or np.abs(texture(shift) - texture()).mean() > 0.05


def test_surface_points_between_pixels_are_blended() -> None:
    matches = PixelMatches.between(canonical_map(2.5), canonical_map())
    moved = matches.difference(texture(2.5), texture())
    nearest_pixel = np.abs(texture(2.5) - texture(2.0)).mean()
    assert moved < 0.5 * nearest_pixel


def test_a_change_of_light_is_measured_exactly() -> None:
    matches = [PixelMatches.between(canonical_map(i + 1.0), canonical_map(float(i))) for i in range(2)]
    images = np.stack([texture(0), texture(1) + 0.1, texture(2) + 0.1])
    np.testing.assert_allclose(temporal_flicker(images, matches), [0.1, 0.0], atol=1e-3)


def test_surface_points_hidden_in_the_other_image_are_left_out() -> None:
    hidden = canonical_map()
    hidden[:, :25] = np.nan
    matches = PixelMatches.between(canonical_map(), hidden)
    columns = matches.pixels % WIDTH
    assert columns.min() >= 24 and columns.max() == 41
    painted = texture()
    painted[:, :23] = 0.0  # where nothing is matched, so nobody sees it
    assert matches.difference(painted, texture()) == pytest.approx(0, abs=1e-4)


def test_too_little_in_common_says_nothing() -> None:
    nothing = np.full((HEIGHT, WIDTH, 3), np.nan)
    for a, b in ((canonical_map(), nothing), (nothing, canonical_map()), (nothing, nothing)):
        assert np.isnan(PixelMatches.between(a, b).difference(texture(), texture()))
    assert len(PixelMatches.between(canonical_map(), canonical_map() + 1.0)) == 0  # another place altogether


def test_view_disagreement_is_the_mean_over_pairs_that_share_something() -> None:
    nothing = np.full((HEIGHT, WIDTH, 3), np.nan)
    images = [texture(), texture(2) + 0.2, texture(4)]
    maps = [canonical_map(), canonical_map(2), canonical_map(4)]
    matches = {(0, 1): PixelMatches.between(maps[0], maps[1]), (0, 2): PixelMatches.between(maps[0], maps[2])}
    assert view_disagreement(images, matches) == pytest.approx(0.1, abs=1e-3)
    matches[1, 2] = PixelMatches.between(maps[1], nothing)
    assert view_disagreement(images, matches) == pytest.approx(0.1, abs=1e-3)
    assert np.isnan(view_disagreement(images, {(1, 2): matches[1, 2]}))
