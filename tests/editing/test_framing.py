"""Images enter a model whole: padded with white, scaled alike in both directions, and come back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edit3dgs_ns.editing.framing import Frame


@given(height=st.integers(1, 300), width=st.integers(1, 300), multiple=st.sampled_from([1, 8, 64]))
def test_without_scaling_nothing_is_lost(height, width, multiple):
    frame = Frame.fit(height, width, multiple)
    images = torch.rand(1, 3, height, width)
    canvas = frame.enter(images)
    assert canvas.shape[-2] % multiple == 0 and canvas.shape[-1] % multiple == 0
    assert canvas.shape[-2] - height < multiple and canvas.shape[-1] - width < multiple
    assert torch.equal(frame.leave(canvas), images)
    assert torch.isclose(canvas.sum(), images.sum() + 3 * (canvas[0, 0].numel() - height * width), rtol=1e-4)


def test_nersemble_size_is_padded_not_stretched():
    frame = Frame.fit(802, 550, 64)
    assert frame.scaled == (802, 550) and frame.canvas == (832, 576)


@pytest.mark.parametrize(("height", "width"), [(802, 550), (550, 802), (96, 96)])
def test_scaling_keeps_proportions(height, width):
    frame = Frame.fit(height, width, 32, longer_side=256)
    assert max(frame.scaled) == 256
    assert frame.scaled[0] / frame.scaled[1] == pytest.approx(height / width, rel=0.01)
    smooth = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4), size=(height, width), mode="bilinear")
    assert (frame.leave(frame.enter(smooth)) - smooth).abs().mean() < 0.02
