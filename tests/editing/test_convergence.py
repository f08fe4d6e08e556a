"""When edits have stopped changing the avatar: the measure, and what it must not be fooled by."""

import numpy as np
import pytest

from edit3dgs_ns.editing.convergence import corrections, has_converged


def test_only_the_head_counts_and_only_what_may_be_edited():
    render = np.ones((2, 4, 4, 3), np.float32)
    render[:, :2] = 0.5  # the upper half shows the head
    edit = render.copy()
    edit[0, :2] = 0.7
    edit[1, 0] = 0.9
    assert corrections(render, edit) == pytest.approx([0.2, 0.2])
    keep = np.zeros((2, 4, 4), np.float32)
    keep[:, 1] = 1.0  # the second row is not to be edited
    assert corrections(render, edit, keep) == pytest.approx([0.2, 0.4])
    assert corrections(render, edit, np.ones_like(keep)) == [0.0, 0.0]


def test_what_an_edit_adds_on_the_background_counts():
    render = np.ones((1, 2, 2, 3), np.float32)
    hat = render.copy()
    hat[0, 0] = 0.0
    assert corrections(render, hat) == [1.0]


def test_two_rounds_have_to_agree():
    assert not has_converged([0.01], 0.02)
    assert has_converged([0.3, 0.01, 0.01], 0.02)
    assert not has_converged([0.01, 0.01, 0.02], 0.02)
    assert not has_converged([0.01, None], 0.02) and not has_converged([None, 0.01], 0.02)
    assert not has_converged([0.0, 0.0], 0.0)


class _Toy:
    """An avatar of one colour, an editor that moves what it is given towards its target, the more the more noise it may use,
    and a fit that goes part of the way to each edit; noise falls over the rounds as in a run."""

    def __init__(self, fit: float, rounds: int = 40, target=lambda number: 1.0):
        self.fit, self.rounds, self.target = fit, rounds, target
        self.avatar, self.edits, self.corrections = 0.0, [], []

    def run(self, threshold: float) -> int:
        """Rounds that were done."""
        for number in range(self.rounds):
            noise = 0.98 + number / (self.rounds - 1) * (0.3 - 0.98)
            edit = self.avatar + noise * (self.target(number) - self.avatar)
            self.edits.append(edit)
            self.corrections.append(abs(edit - self.avatar))
            self.avatar += self.fit * (edit - self.avatar)
            if has_converged(self.corrections, threshold):
                break
        return len(self.edits)


def test_ending_early_gives_what_all_rounds_would_have_given():
    early, whole = _Toy(fit=0.6), _Toy(fit=0.6)
    assert early.run(0.02) < 12 and whole.run(0.0) == 40
    assert early.avatar == pytest.approx(whole.avatar, abs=0.02 / 0.3)


def test_slow_fitting_does_not_look_like_convergence():
    """Where the avatar hardly follows, its edits hardly change from round to round, nor do its renders."""
    toy = _Toy(fit=0.01)
    assert toy.run(0.02) == 40
    assert abs(toy.edits[-1] - toy.edits[-2]) < 0.02 and toy.avatar < 0.5


def test_low_noise_alone_is_not_convergence():
    """An editor that wants something else every time goes on changing the avatar under the lowest bound too."""
    toy = _Toy(fit=0.6, target=lambda number: number % 2)
    assert toy.run(0.02) == 40
