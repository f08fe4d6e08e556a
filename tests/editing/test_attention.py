"""Key-view attention and feature injection against explicit computations, and what must hold for any batch."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edit3dgs_ns.editing.agreement.attention import SharedAttention, joint_attention, token_grid
from edit3dgs_ns.editing.agreement.key_views import draw_key_views, order_around_head, runs_of
from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.loading import load_editor
from tests.explicit_sharing import explicit_attention, share_explicitly, strengthen_self_attention
from tests.fake_correspondence import FakeCorrespondence, random_index

ROOT = Path(__file__).resolve().parents[2]
LATENT = (8, 12)


@pytest.fixture
def unet(tiny_editor_folder):
    return load_editor(tiny_editor_folder).unet


def _forward(unet, rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(rows, 8, *LATENT, generator=generator)
    words = torch.randn(rows, 16, 32, generator=generator)
    with torch.no_grad():
        return unet(latents, torch.tensor(500), encoder_hidden_states=words).sample


def _record_self_attention(unet):
    """Inputs and outputs of every self-attention layer of the next forwards."""
    seen = {}

    def hook_for(name):
        return lambda _, args, output: seen.setdefault(name, []).append((args[0].clone(), output.clone()))

    layers = {name: m for name, m in unet.named_modules() if name.endswith("attn1")}
    handles = [layer.register_forward_hook(hook_for(name)) for name, layer in layers.items()]
    return layers, seen, handles


# -- the layers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sliced", [False, True])
def test_key_views_see_the_tokens_of_all_key_views_of_their_branch(unet, sliced):
    if sliced:
        unet.set_attention_slice("max")
    layers, seen, _ = _record_self_attention(unet)
    with SharedAttention(unet, FakeCorrespondence(), LATENT, branches=2) as shared:
        shared.begin_step((0, 2, 5))
        with shared.key_pass():
            _forward(unet, rows=2 * 3)
    assert len(layers) == 4
    for name, attn in layers.items():
        ((hidden, output),) = seen[name]
        for branch in range(2):
            rows = hidden[3 * branch : 3 * branch + 3]
            for key in range(3):
                expected = explicit_attention(attn, rows[key], rows.flatten(0, 1))
                torch.testing.assert_close(output[3 * branch + key].double(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("needs_features", [False, True])
@pytest.mark.parametrize("branches", [1, 2, 3])
def test_others_take_the_key_views_output_or_look_at_themselves(unet, branches, needs_features):
    layers, seen, _ = _record_self_attention(unet)
    correspondence = FakeCorrespondence(needs_features, random=True)
    views = (1, 4, 3)
    with SharedAttention(unet, correspondence, LATENT, branches=branches) as shared:
        shared.begin_step((0, 2))
        with shared.key_pass():
            _forward(unet, rows=branches * 2)
        with shared.injected_pass(views):
            _forward(unet, rows=branches * 3, seed=1)
    for name, attn in layers.items():
        (_, found), (hidden, output) = seen[name]
        for row, (branch, view) in enumerate((b, v) for b in range(branches) for v in views):
            own = explicit_attention(attn, hidden[row], hidden[row])
            index = random_index(view, hidden.shape[1])
            for token, (first, second) in enumerate(index.T.tolist()):
                parts = [
                    (w, found[branch * 2 + key, i].double())
                    for key, (w, i) in enumerate(((0.7, first), (0.3, second)))
                    if i >= 0
                ]
                expected = sum(w * x for w, x in parts) / sum(w for w, _ in parts) if parts else own[token]
                torch.testing.assert_close(output[row, token].double(), expected, atol=1e-5, rtol=1e-4)


def test_the_first_branch_decides_with_the_layers_inputs(unet):
    _, seen, _ = _record_self_attention(unet)
    correspondence = FakeCorrespondence(needs_features=True)
    with SharedAttention(unet, correspondence, LATENT, branches=3) as shared:
        shared.begin_step((0, 2))
        with shared.key_pass():
            _forward(unet, rows=6)
        with shared.injected_pass((1,)):
            _forward(unet, rows=3, seed=1)
    inputs = list(seen.values())
    assert len(correspondence.asked) == 4
    for views, keys, grid, queries, key_queries in correspondence.asked:
        assert (views, keys) == ((1,), (0, 2)) and grid in ((4, 6),)
        assert any(torch.equal(others[:1], queries) for _, (others, _) in inputs)
        assert any(torch.equal(key[:2], key_queries) for (key, _), _ in inputs)


def test_without_features_a_grid_is_matched_once(unet):
    correspondence = FakeCorrespondence()
    with SharedAttention(unet, correspondence, LATENT) as shared:
        shared.begin_step((0,))
        with shared.key_pass():
            _forward(unet, rows=1)
        with shared.injected_pass((1, 2)):
            _forward(unet, rows=2)
    assert [asked[:3] for asked in correspondence.asked] == [((1, 2), (0,), (4, 6))]


def test_outside_of_a_pass_nothing_is_shared(unet):
    expected = _forward(unet, rows=3)
    with SharedAttention(unet, FakeCorrespondence(), LATENT) as shared:
        torch.testing.assert_close(_forward(unet, rows=3), expected)
        shared.begin_step((0, 1, 2))
        with shared.key_pass():
            assert (_forward(unet, rows=3) - expected).abs().max() > 1e-4
        torch.testing.assert_close(_forward(unet, rows=3), expected)


def test_only_self_attention_is_replaced_and_all_is_put_back_even_on_error(unet):
    before = unet.attn_processors
    with pytest.raises(KeyError, match="stop"), SharedAttention(unet, FakeCorrespondence(), LATENT):
        during = unet.attn_processors
        raise KeyError("stop")
    assert {name for name in before if during[name] is not before[name]} == {
        name for name in before if "attn1" in name
    }
    after = unet.attn_processors
    assert all(after[name] is before[name] for name in before)


def test_token_grids_are_fractions_of_the_latents():
    assert [token_grid((104, 72), 104 * 72 // n**2) for n in (1, 2, 4, 8)] == [
        (104, 72),
        (52, 36),
        (26, 18),
        (13, 9),
    ]


def test_sliced_attention_gives_the_same_and_never_scores_all_queries_at_once(unet):
    attn = next(m for name, m in unet.named_modules() if name.endswith("attn1"))
    hidden = torch.randn(2, 3, 10, attn.to_q.in_features)
    with torch.no_grad():
        expected = joint_attention(attn.processor, attn, hidden)
        attn.set_attention_slice(1)
        scores, get = [], attn.get_attention_scores
        attn.get_attention_scores = lambda q, k, mask: (
            scores.append((q.shape[1], k.shape[1])) or get(q, k, mask)
        )
        torch.testing.assert_close(joint_attention(attn.processor, attn, hidden), expected)
    assert set(scores) == {(10, 30)}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory as Linux counts it")
def test_peak_memory_at_stable_diffusions_size_stays_far_below_views_times_tokens_squared():
    """16 views of 64 x 64 tokens and 320 channels, found along epipolar lines, which needs most."""
    command = [sys.executable, "-m", "tools.measure.benchmarks.attention_memory"]
    command += ["--views", "16", "--branches", "1", "--correspondence", "epipolar"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    measured = json.loads(done.stdout)
    assert measured["views_tokens_tokens_mib"] == 16 * 4096**2 * 4 / 2**20
    assert measured["features_of_all_views_mib"] < measured["peak_mib"] < 400


# -- the loop ------------------------------------------------------------------------------------------------


def test_one_view_is_edited_as_if_alone(make_sharing_editor, tiny_editor_folder, make_request):
    request = make_request(views=1)
    alone = load_editor(tiny_editor_folder).edit(request).images
    np.testing.assert_allclose(
        make_sharing_editor(FakeCorrespondence()).edit(request).images, alone, atol=1e-5
    )


@pytest.mark.parametrize("scales", [(1.0, 1.0), (3.0, 1.0), (7.5, 1.5)])
def test_views_that_are_the_same_stay_as_they_would_be_alone(
    make_sharing_editor, tiny_editor_folder, make_request, scales
):
    one = make_request(views=1, height=33, width=21)
    options = {"guidance_scale": scales[0], "image_guidance_scale": scales[1], "height": 33, "width": 21}
    same = make_request(
        views=5, images=np.repeat(one.images, 5, 0), originals=np.repeat(one.originals, 5, 0), **options
    )
    alone = load_editor(tiny_editor_folder).edit(same)
    shared = make_sharing_editor(FakeCorrespondence()).edit(same)
    np.testing.assert_allclose(shared.images, alone.images, atol=1e-4)
    assert shared.unet_evaluations == alone.unet_evaluations


def _keys_of_step(request, views_per_key):
    """Key views of each denoising step of a request."""
    runs = runs_of(order_around_head(request.c2w, request.timesteps), views_per_key)
    return lambda step: draw_key_views(runs, request.seed, step)


def _edited(editor, request):
    """The edited views of an editor whose self-attention counts."""
    strengthen_self_attention(editor)
    return editor.edit(request).images


def _edited_explicitly(folder, request, match):
    """The same without and with textbook sharing of the key views' attention."""
    plain = load_editor(folder, views_per_forward=request.num_views)
    alone = _edited(plain, request)
    share_explicitly(plain, request.num_views, _keys_of_step(request, 2), match)
    return alone, plain.edit(request).images


def test_views_influence_each_other_as_explicit_attention_says(
    make_sharing_editor, tiny_editor_folder, make_request
):
    """Over several steps, in every branch, to the pixels: neither less nor more."""
    request = make_request(views=5, height=32, width=24, steps=3, seed=4)
    shared = _edited(make_sharing_editor(FakeCorrespondence(random=True)), request)

    def match(view, keys, queries, key_queries):
        weights = torch.zeros(len(queries), len(keys), len(queries))
        for token, places in enumerate(random_index(view, len(queries)).T.tolist()):
            for key, (place, weight) in enumerate(zip(places, (0.7, 0.3), strict=True)):
                if place >= 0:
                    weights[token, key, place] = weight
        return torch.nn.functional.normalize(weights.flatten(1), p=1, dim=1)

    alone, expected = _edited_explicitly(tiny_editor_folder, request, match)
    np.testing.assert_allclose(shared, expected, atol=1e-4)
    # The tolerance is far below what sharing changes, in every view.
    assert (np.abs(shared - alone).max(axis=(1, 2, 3)) > 100 * 1e-4).all()


def test_what_a_view_is_reaches_others_through_key_views_alone(make_sharing_editor, make_request):
    """One step: of a key view every other view takes something, of another view none takes anything."""
    request = make_request(views=4, steps=1)
    editor = make_sharing_editor(FakeCorrespondence())
    before, keys = _edited(editor, request), _keys_of_step(request, 2)(0)
    assert len(keys) == 2
    for changed in range(4):
        originals = request.originals.copy()
        originals[changed] = 1 - originals[changed]
        after = editor.edit(make_request(views=4, steps=1, originals=originals)).images
        change = np.abs(after - before).max(axis=(1, 2, 3))
        others = [view for view in range(4) if view != changed]
        if changed in keys:
            # Fifty times what rounding may change, and less than what changes the view itself.
            assert (change[others] > 5e-5).all() and (change[others] < change[changed]).all()
        else:
            assert (change[others] <= 1e-6).all()
        assert change[changed] > 1e-4


@pytest.mark.parametrize("views", range(1, 8))
def test_any_number_of_views_costs_what_editing_each_alone_costs(make_sharing_editor, make_request, views):
    editor = make_sharing_editor(FakeCorrespondence(random=True), views_per_key=3)
    rows = []
    editor.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    result = editor.edit(make_request(views=views, steps=2))
    assert sum(rows) == result.unet_evaluations == views * 2 * 3
    assert result.images.shape[0] == views and np.isfinite(result.images).all()


@pytest.mark.parametrize("needs_features", [False, True])
def test_the_split_into_forwards_changes_nothing(make_sharing_editor, make_request, needs_features):
    request = make_request(views=7, view_ids=(3, 1, 4, 9, 5, 2, 6))
    correspondence = FakeCorrespondence(needs_features, random=True)
    together = make_sharing_editor(correspondence, views_per_forward=7).edit(request)
    for size in (1, 3):
        split = make_sharing_editor(correspondence, views_per_forward=size).edit(request)
        np.testing.assert_allclose(split.images, together.images, atol=1e-4)


def test_key_views_are_drawn_anew_at_every_step_by_the_seed(make_sharing_editor, make_request):
    def drawn(seed):
        correspondence = FakeCorrespondence()
        result = make_sharing_editor(correspondence).edit(make_request(views=6, steps=8, seed=seed))
        return [keys for _, keys, *_ in correspondence.asked], result.images

    (keys, images), (again, images_again), (other, _) = drawn(1), drawn(1), drawn(2)
    assert keys == again and keys != other and len(set(keys)) > 1
    assert all(len(k) == 3 and all(key // 2 == run for run, key in enumerate(k)) for k in keys)
    np.testing.assert_array_equal(images, images_again)


def test_late_steps_are_denoised_alone(make_sharing_editor, tiny_editor_folder, make_request):
    request = make_request(views=4)
    alone = load_editor(tiny_editor_folder).edit(request).images
    never = make_sharing_editor(FakeCorrespondence(), self_attention_below=1000).edit(request).images
    np.testing.assert_allclose(never, alone, atol=1e-5)
    correspondence = FakeCorrespondence()
    editor = make_sharing_editor(correspondence, self_attention_below=500)
    editor.edit(make_request(views=4, steps=10))
    assert len({keys for _, keys, *_ in correspondence.asked}) > 1
    timesteps = editor.scheduler.timesteps
    assert len(correspondence.asked) == (timesteps >= 500).sum()


def test_processors_are_put_back_after_an_edit_and_after_a_failed_one(make_sharing_editor, make_request):
    editor = make_sharing_editor(FakeCorrespondence())
    before = editor.unet.attn_processors

    def fail(done, total):
        raise KeyboardInterrupt

    editor.edit(make_request(views=3, steps=1))
    with pytest.raises(KeyboardInterrupt):
        editor.edit(make_request(views=3), progress=fail)
    after = editor.unet.attn_processors
    assert all(after[name] is before[name] for name in before)


def test_a_rig_and_epipolar_lines_connect_real_requests(tiny_editor_folder, make_request):
    """Two cameras at one place see the same: shared or not, the two views come out the same."""
    one = make_request(views=1)
    y, x = np.mgrid[:32, :32] / 320
    canonical = np.stack([x, y, 0 * x], axis=-1).astype(np.float32)
    canonical[:, 20:] = np.nan
    c2w = np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    c2w[:, 2, 3] = 1.0
    K = np.tile(np.array([[100, 0, 16], [0, 100, 16], [0, 0, 1]], np.float32), (3, 1, 1))
    request = make_request(
        views=3,
        images=np.repeat(one.images, 3, 0),
        originals=np.repeat(one.originals, 3, 0),
        canonical=np.repeat(canonical[None], 3, 0),
        c2w=c2w,
        K=K,
    )
    alone = load_editor(tiny_editor_folder).edit(request)
    for kind in ("rig", "epipolar"):
        editor = load_editor(tiny_editor_folder, sharing=SharingOptions(kind))
        shared = editor.edit(request)
        np.testing.assert_allclose(shared.images, alone.images, atol=1e-4)
        assert shared.settings["correspondence"] == kind and editor.views_depend


# -- epipolar lines, end to end ------------------------------------------------------------------------------

HEIGHT, WIDTH, MARGIN, TOKEN = 30, 44, 1, 4
"""Image, rows of padding above it in the canvas of 32 x 44, and pixels of the canvas to a token."""


def _camera(azimuth, elevation, roll, distance):
    """Camera-to-world, OpenGL axes, of a camera that looks at the origin."""
    back = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    right = np.cross([0, 1, 0], back) / np.linalg.norm(np.cross([0, 1, 0], back))
    up = np.cross(back, right)
    c2w = np.eye(4)
    c2w[:3, 0] = np.cos(roll) * right + np.sin(roll) * up
    c2w[:3, 1] = np.cos(roll) * up - np.sin(roll) * right
    c2w[:3, 2], c2w[:3, 3] = back, distance * back
    return c2w


def _cameras_with_baselines():
    """Five cameras around the origin, none like another, 30 to 50 cm from their neighbours; and their intrinsics. The first
    looks past the others' lower half."""
    poses = [
        (-0.7, 0.1, 0.05, 1.0),
        (-0.35, -0.12, -0.2, 1.1),
        (0.02, 0.2, 0.1, 0.9),
        (0.4, 0.0, 0.3, 1.0),
        (0.8, 0.15, -0.1, 1.2),
    ]
    K = [[[60 + 5 * i, 0, 21.3 + i], [0, 62 + 4 * i, 14.8 - i / 2], [0, 0, 1]] for i in range(5)]
    K[0][1][2] += 14
    return np.array([_camera(*pose) for pose in poses], np.float32), np.array(K, np.float32)


def _token_centres():
    """Pixel (x, y) of the image, row by row."""
    y, x = np.mgrid[: (HEIGHT + 2 * MARGIN) // TOKEN, : WIDTH // TOKEN]
    return np.stack([(x + 0.5) * TOKEN, (y + 0.5) * TOKEN - MARGIN], axis=-1).reshape(-1, 2)


def _distances_to_lines(c2w, K, view, key):
    """Distance, in tokens, of every token of a key view (columns) to the line that each token of a view (rows) is seen along:
    two points of the token's ray are projected into the key view, and the line runs through these."""
    centres = _token_centres()
    rays = np.c_[
        (centres[:, 0] - K[view, 0, 2]) / K[view, 0, 0],
        -(centres[:, 1] - K[view, 1, 2]) / K[view, 1, 1],
        -np.ones(len(centres)),
    ]
    ends = []
    for depth in (0.6, 1.6):
        world = depth * rays @ c2w[view, :3, :3].T + c2w[view, :3, 3]
        x, y, z = ((world - c2w[key, :3, 3]) @ c2w[key, :3, :3]).T
        assert (z < 0).all()
        ends.append(
            np.stack([K[key, 0, 0] * x / -z + K[key, 0, 2], K[key, 1, 1] * -y / -z + K[key, 1, 2]], axis=-1)
        )
    (ax, ay), (bx, by) = (end.T[:, :, None] for end in ends)
    cross = (bx - ax) * (centres[:, 1] - ay) - (by - ay) * (centres[:, 0] - ax)
    return np.abs(cross) / np.hypot(bx - ax, by - ay) / TOKEN


def test_features_travel_along_epipolar_lines(tiny_editor_folder, make_request):
    """An edit of cameras with real baselines, against rays followed by hand and textbook attention."""
    c2w, K = _cameras_with_baselines()
    options = {"height": HEIGHT, "width": WIDTH, "steps": 2, "c2w": c2w, "K": K, "seed": 3}
    request = make_request(views=5, **options)
    sharing = SharingOptions("epipolar", views_per_key=2, self_attention_below=0, share_prediction_until=1.0)
    shared = _edited(load_editor(tiny_editor_folder, sharing=sharing), request)
    matched, restricted = [], []

    def match(view, keys, queries, key_queries):
        away = np.linalg.norm(c2w[keys, :3, 3] - c2w[view, :3, 3], axis=1)
        first, second = np.argsort(away)[:2]
        weights = torch.zeros(len(queries), len(keys), len(queries))
        for place, share in ((first, away[second]), (second, away[first])):
            distance = _distances_to_lines(c2w, K, view, keys[place])
            assert np.abs(distance - 1).min() > 1e-5, "a token lies on the border of the band"
            similarity = torch.nn.functional.cosine_similarity(queries[:, None], key_queries[place], dim=-1)
            near = torch.from_numpy(distance <= 1)
            best = similarity.masked_fill(~near, -torch.inf).argmax(dim=1)
            some = near.any(dim=1)
            weights[some, place, best[some]] = float(share)
            matched.append(some)
            restricted.append((best != similarity.argmax(dim=1))[some])
        return torch.nn.functional.normalize(weights.flatten(1), p=1, dim=1)

    alone, expected = _edited_explicitly(tiny_editor_folder, request, match)
    np.testing.assert_allclose(shared, expected, atol=1e-4)
    assert (np.abs(shared - alone).max(axis=(1, 2, 3)) > 100 * 1e-4).all()
    # Most tokens see a line in the key view, some none; and many lines keep out the token that is most similar anywhere.
    assert 0.5 < torch.cat(matched).float().mean() < 1
    assert torch.cat(restricted).float().mean() > 0.4
