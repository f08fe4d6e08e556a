"""What a request says of the views: where on the head their pixels are, and what of them is kept."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation

from edit3dgs_ns.editing.editor import EditResult, KeepOptions
from edit3dgs_ns.editing.schedule import Batch
from tests.tiny_capture import write_tiny_capture

SIZE = 96


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """Data manager and model of an untrained avatar: one opaque Gaussian on every face."""
    from edit3dgs_ns.method_configs.rigged_splatfacto import rigged_splatfacto

    config = copy.deepcopy(rigged_splatfacto.config.pipeline)
    config.datamanager.dataparser.data = write_tiny_capture(
        tmp_path_factory.mktemp("capture"), size=SIZE, cameras=3, timesteps=2, samples=1
    ).union
    pipeline = config.setup(device="cpu", test_mode="val")
    with torch.no_grad():
        pipeline.model.gauss_params["opacities"].fill_(3.0)
        pipeline.model.gauss_params["scales"].fill_(-1.0)
    return pipeline.datamanager, pipeline.model


def _vertex_pixels(stack, view: int, vertices: torch.Tensor) -> np.ndarray:
    """Where vertices of the posed head are in a training view."""
    from edit3dgs_ns.splats.views import viewmats_from_c2w

    datamanager, model = stack
    camera = datamanager.train_camera([view])
    with torch.no_grad():
        posed = model.head.vertices_at(float(camera.times[0, 0]))[vertices]
    viewmat = viewmats_from_c2w(camera.camera_to_worlds)[0]
    local = posed @ viewmat[:3, :3].T + viewmat[:3, 3]
    pixels = local @ camera.get_intrinsics_matrices()[0].T
    return (pixels[:, :2] / pixels[:, 2:]).numpy()


def test_a_vertex_has_one_place_on_the_canonical_head_in_every_view_and_at_every_timestep(stack):
    from edit3dgs_ns.training.surface_maps import AvatarMaps

    datamanager, model = stack
    nose = model.head.canonical_vertices()[:, 2].argmax()[None]
    place = model.head.canonical_vertices()[nose[0]].detach().numpy()
    pixel = 0.42 / SIZE
    for views in datamanager.indices_by_timestep().values():
        for view in views:
            x, y = _vertex_pixels(stack, view, nose)[0].astype(int)
            found = AvatarMaps(datamanager, model).canonical(view)
            assert found.shape == (SIZE, SIZE, 3) and np.isnan(found[0, 0]).all()
            assert np.linalg.norm(found[y, x] - place) < 2.5 * pixel


def test_the_mask_of_a_part_lies_where_its_vertices_are(stack):
    from edit3dgs_ns.edit_training.masks import make_keep_masks
    from edit3dgs_ns.training.model_setup import head_assets

    datamanager, model = stack
    keep = make_keep_masks(_config(keep="nose"), datamanager, model)
    views = next(iter(datamanager.indices_by_timestep().values()))
    masks = keep.masks(np.ones((len(views), SIZE, SIZE, 3), np.float32), views)
    nose = head_assets(datamanager.train_dataset.metadata).vertex_regions["nose"]
    for view, mask in zip(views, masks, strict=True):
        y, x = np.nonzero(mask > 0.5)
        pixels = _vertex_pixels(stack, view, torch.from_numpy(nose))
        assert len(x) > 20
        np.testing.assert_allclose([x.min(), x.max() + 1], [pixels[:, 0].min(), pixels[:, 0].max()], atol=2.5)
        np.testing.assert_allclose([y.min(), y.max() + 1], [pixels[:, 1].min(), pixels[:, 1].max()], atol=2.5)


def _config(keep="none", only="none"):
    return SimpleNamespace(masks="rig", editor=SimpleNamespace(keep=keep, only=only, keep_margin=0.0))


def test_requests_say_per_view_what_is_shown_when_and_what_is_kept(stack):
    from edit3dgs_ns.edit_training.masks import make_keep_masks
    from edit3dgs_ns.edit_training.options import EditorConfig
    from edit3dgs_ns.edit_training.requests import RequestMaker

    datamanager, model = stack
    by_timestep = datamanager.indices_by_timestep()
    first, second = list(by_timestep)[:2]
    views = (by_timestep[first][0], by_timestep[second][1])
    batch = Batch(round=0, views=views, timesteps=(first, second), noise=0.7, seed=3)
    keep = make_keep_masks(_config(keep="eyes,eyelids,mouth,lips"), datamanager, model)
    options = EditorConfig(keep_strength=0.9, keep_from=0.2, keep_until=0.8, correspondence="rig")
    request = RequestMaker(datamanager, model, "older", options, keep).make(batch, views[::-1])
    assert request.view_ids == views[::-1] and request.timesteps == (second, first)
    assert request.keep_options == KeepOptions(keep_strength=0.9, keep_from=0.2, keep_until=0.8)
    for place, view in enumerate(request.view_ids):
        head = request.originals[place].min(axis=-1) < 0.99
        shown = np.isfinite(request.canonical[place]).all(axis=-1)
        away = ~binary_dilation(head, iterations=4)  # the Gaussians of this avatar reach over its outline
        assert shown[head].mean() > 0.85 and shown[away].mean() < 0.05
        assert 0.005 < request.keep_mask[place].mean() < 0.1 and request.keep_mask[place][away].max() < 0.01
        np.testing.assert_array_equal(
            request.images[place], RequestMaker(datamanager, model, "older", options, keep).render(view)
        )
    bare = RequestMaker(
        datamanager,
        model,
        "older",
        EditorConfig(correspondence="none"),
        make_keep_masks(_config(), datamanager, model),
    )
    request = bare.make(batch, views)
    assert request.keep_mask is None


def test_the_avatar_is_posed_once_for_every_timestep_of_a_batch(stack, monkeypatch):
    from edit3dgs_ns.edit_training.masks import make_keep_masks
    from edit3dgs_ns.edit_training.options import EditorConfig
    from edit3dgs_ns.edit_training.requests import RequestMaker
    from edit3dgs_ns.flame.model import ShapedHead
    from edit3dgs_ns.training.surface_maps import AvatarMaps

    datamanager, model = stack
    by_timestep = datamanager.indices_by_timestep()
    first, second = list(by_timestep)[:2]
    views = (*by_timestep[first][:2], *by_timestep[second][:2])
    batch = Batch(round=0, views=views, timesteps=(first, first, second, second), noise=0.7, seed=3)
    maps = AvatarMaps(datamanager, model)
    keep = make_keep_masks(_config(keep="eyes,mouth", only="hair"), datamanager, model, maps)
    maker = RequestMaker(datamanager, model, "older", EditorConfig(correspondence="rig"), keep, maps)
    alone = [maker.make(batch, [view]) for view in views]
    posed, pose = [], ShapedHead.posed

    def count(self, frames):
        posed.append(frames)
        return pose(self, frames)

    monkeypatch.setattr(ShapedHead, "posed", count)
    request = maker.make(batch, views)
    monkeypatch.undo()
    assert len(posed) == 3  # two timesteps, and the head at rest
    for place, single in enumerate(alone):
        for name in ("images", "canonical", "keep_mask"):
            np.testing.assert_array_equal(getattr(request, name)[place], getattr(single, name)[0])
    # Nothing is kept beyond the request: the avatar goes on changing.
    colors = model.gauss_params["features_dc"].data
    model.gauss_params["features_dc"].data = colors + 1
    assert np.abs(maker.make(batch, views[:1]).images - request.images[:1]).max() > 0.1
    model.gauss_params["features_dc"].data = colors


@pytest.mark.parametrize("option", ["keep", "only"])
def test_an_unknown_part_is_named_with_all_that_there_are(stack, option):
    from edit3dgs_ns.edit_training.masks import make_keep_masks

    with pytest.raises(ValueError, match=rf"--pipeline.editor.{option} eyes,hat: .*'hat'.*eyes.*hair.*mouth"):
        make_keep_masks(_config(**{option: "eyes,hat"}), *stack)


def test_what_is_kept_is_part_of_the_settings_that_edits_are_stored_under(stack):
    from edit3dgs_ns.edit_training.masks import make_keep_masks

    def settings(**options):
        return make_keep_masks(_config(**options), *stack).settings()

    assert settings() is None
    assert settings(keep="mouth,eyes") == settings(keep="eyes, mouth") != settings(only="eyes,mouth")


def test_masks_from_words_without_their_weights_are_refused_with_the_way_out(stack, tmp_path):
    from edit3dgs_ns.edit_training.masks import make_keep_masks
    from edit3dgs_ns.editing.masks.grounded_sam_options import GroundedSamOptions

    pytest.importorskip("sam2", reason="sam2 is not installed: see edit3dgs doctor")
    config = _config(keep="the hat. eyes")
    config.masks = "grounded-sam"
    config.grounded_sam = GroundedSamOptions(detector=str(tmp_path / "swint.pth"))
    with pytest.raises(FileNotFoundError) as error:
        make_keep_masks(config, *stack)
    for part in ("--pipeline.grounded-sam.detector", "swint.pth", "--pipeline.masks rig"):
        assert part in str(error.value)


def test_masks_from_words_that_nobody_asked_for_load_nothing(stack, caplog):
    from edit3dgs_ns.edit_training.masks import make_keep_masks

    config = _config()
    config.masks = "grounded-sam"
    assert make_keep_masks(config, *stack).settings() is None
    assert "--pipeline.masks grounded-sam is not used" in caplog.text


class _Recorder:
    """An editor that leaves every view as it is and remembers what it was asked for."""

    views_depend = False
    settings: dict = {}  # noqa: RUF012

    def __init__(self):
        self.requests = []

    def edit(self, request, progress=None, finished=None):
        self.requests.append(request)
        return EditResult(images=request.originals * np.float32(0.5))


def test_later_rounds_take_edits_of_the_first_along_and_store_only_their_own(stack, tmp_path):
    from edit3dgs_ns.edit_training.history import History
    from edit3dgs_ns.edit_training.masks import make_keep_masks
    from edit3dgs_ns.edit_training.options import EditorConfig
    from edit3dgs_ns.edit_training.requests import RequestMaker
    from edit3dgs_ns.edit_training.rounds import EditRounds
    from edit3dgs_ns.editing.store import EditKey, EditStore

    datamanager, model = stack
    by_timestep = datamanager.indices_by_timestep()
    requests = RequestMaker(
        datamanager,
        model,
        "older",
        EditorConfig(correspondence="none"),
        make_keep_masks(_config(), datamanager, model),
    )
    editor, store = _Recorder(), EditStore(tmp_path / "edits", {})
    history = History(tmp_path / "history.json", "older", 2, 0, {})
    rounds = EditRounds(datamanager, requests, editor, store, history, rounds=2, anchors=1)
    for number, timestep in enumerate(list(by_timestep)[:2]):
        views = tuple(by_timestep[timestep])
        rounds.run([Batch(number, views, (timestep,) * len(views), noise=0.9, seed=0)], step=number)
    first, second = editor.requests
    own = tuple(by_timestep[list(by_timestep)[1]])
    assert first.anchors == () and second.anchors == (len(own),) and second.view_ids[:-1] == own
    (anchor,) = second.view_ids[-1:]
    assert anchor in first.view_ids and second.timesteps[-1] == next(iter(by_timestep))
    np.testing.assert_array_equal(second.images[-1], store.get(EditKey(0, anchor)).astype(np.float32) / 255)
    np.testing.assert_array_equal(second.originals[-1], first.originals[first.view_ids.index(anchor)])
    assert [key.view for key in store.edits() if key.round == 1] == list(own)
    assert [len(batch["views"]) for batch in history.batches] == [len(first.view_ids), len(own)]
