"""Bad edits in a run: refused, edited again with another seed, left out and named; training goes on with the others."""

from __future__ import annotations

import numpy as np
import pytest

from edit3dgs_ns.edit_training.judged_edits import summary
from tests.edit_runs import GreenEditor, history_of, store_of, train


class Spoiling(GreenEditor):
    """Turns everything green, and spoils some views.

    Args:
        spoil: given the request, a position and its image; changes the image.
    """

    def __init__(self, spoil, views_depend=True):
        self._spoil, self.views_depend = spoil, views_depend
        self.requests = []

    def edit(self, request, progress=None, finished=None):
        self.requests.append(request)
        result = super().edit(request)
        for position, image in enumerate(result.images):
            self._spoil(request, position, image)
            if finished is not None and not self.views_depend:
                finished(position, image)
        return result


@pytest.fixture
def run_with(make_config, monkeypatch):
    """Trains with an editor, judged."""
    from edit3dgs_ns.edit_training.pipeline import EditPipeline

    def run(editor, **options):
        monkeypatch.setattr(EditPipeline, "_load_editor", lambda self: editor)
        return train(make_config(judge=True, rounds=2, views_per_edit=3, **options))

    return run


@pytest.mark.parametrize("views_depend", [True, False])
def test_a_bad_view_is_edited_again_with_another_seed_beside_the_good_ones(run_with, views_depend):
    """In the first request of each round one view has an overflow."""

    def spoil(request, position, image):
        if position == 1 and request.num_views == 3 and not request.anchors:
            image[3, 4] = np.nan

    editor = Spoiling(spoil, views_depend)
    trainer = run_with(editor)
    store, history = store_of(trainer.base_dir), history_of(trainer.base_dir)
    assert len(store) == 6
    first, again = editor.requests[:2]
    assert again.view_ids[0] == first.view_ids[1] and again.seed != first.seed
    if views_depend:
        assert set(again.view_ids[1:]) == {first.view_ids[0], first.view_ids[2]} and again.anchors == (1, 2)
        green = np.round(GreenEditor().edit(again).images[1] * 255)
        np.testing.assert_allclose(again.images[1] * 255, green, atol=1)
    else:
        assert again.view_ids == (first.view_ids[1],)
    expected = {"refused": {"not finite": 2}, "mended": 0, "edited_again": 2, "left_out": 0}
    assert history["judged"] == expected
    assert summary(history["batches"]) == "Views: 2 edited again."


def test_a_view_that_stays_bad_is_left_out_and_named_and_the_run_goes_on(run_with, make_config, capsys):
    victims = set()

    def spoil(request, position, image):
        if not victims:
            victims.add(request.view_ids[0])
        if request.view_ids[position] in victims and position not in request.anchors:
            image[:] = 0.0

    editor = Spoiling(spoil)
    trainer = run_with(editor, retries=1)
    (victim,) = victims
    history = history_of(trainer.base_dir)
    assert victim not in {key.view for key in store_of(trainer.base_dir).edits()}
    assert victim not in trainer.pipeline.datamanager.replaced_indices()
    (entry,) = history["batches"][0]["judged"]["left_out"]
    assert entry["view"] == victim and entry["fault"] == "one colour"
    assert history["judged"] == {"refused": {"one colour": 2}, "mended": 0, "edited_again": 1, "left_out": 1}
    assert history["edited_images"] == len(store_of(trainer.base_dir)) == 5 and history["finished"]
    said = capsys.readouterr().out
    assert f"view {victim} " in said and "one colour" in said and "--pipeline.editor.dtype" in said
    # Resumed, it is not tried again.
    asked = len(editor.requests)
    run_with(editor, retries=1, load_dir=trainer.base_dir)
    assert len(editor.requests) == asked


def test_an_edit_that_did_not_take_says_what_to_raise(run_with):
    def spoil(request, position, image):
        image[:] = request.originals[position]

    with pytest.raises(
        ValueError, match=r"(?s)unchanged.*--pipeline.editor.guidance-scale.*--pipeline.judge False"
    ):
        run_with(Spoiling(spoil), retries=0)


@pytest.mark.parametrize("green", [True, False])
def test_keep_auto_decides_in_the_first_round_and_a_resumed_run_the_same(run_with, green, monkeypatch):
    """A stain leaves eyes and mouth what they are: they are kept. One grey does not."""
    from edit3dgs_ns.editing.masks import keep_auto

    # Of images of 40 pixels, in which an eye is two pixels wide.
    monkeypatch.setattr(keep_auto, "_LEAST_PIXELS", 4)
    monkeypatch.setattr(keep_auto, "_SOLID", 0.1)

    def stain(request, position, image):
        head = (request.originals[position].min(axis=-1) < 0.97)[..., None]
        image[:] = request.originals[position] * np.where(head, (0.75, 1.0, 0.75), 1.0)
        if not green:
            image[:] = np.where(head, 0.4, image)
            image[::3, ::2] *= 0.7  # not one colour

    editor = Spoiling(stain)
    trainer = run_with(editor, keep="auto")
    first, second = editor.requests[0], editor.requests[-1]
    store, decided = store_of(trainer.base_dir), history_of(trainer.base_dir)["batches"][0]["keep_auto"]
    assert decided["kept"] is green and store.note("keep_auto") == decided
    assert first.keep_mask is None and (second.keep_mask is not None) == green
    if green:
        mask = trainer.pipeline._edit.keep.masks(first.originals, first.view_ids)
        for place, view in enumerate(first.view_ids):
            (key,) = (key for key in store.edits() if key.round == 0 and key.view == view)
            shown, solid = store.get(key) / 255, mask[place] > 0.6
            assert solid.any()
            np.testing.assert_allclose(shown[solid], first.originals[place][solid], atol=0.1)
    # Resumed without its second round, it knows what it has decided.
    (trainer.base_dir / "edit_history.json").unlink()
    for key in store.edits():
        if key.round == 1:
            store.discard(key)
    editor.requests.clear()
    run_with(editor, keep="auto", load_dir=trainer.base_dir)
    assert (editor.requests[0].keep_mask is not None) == green
