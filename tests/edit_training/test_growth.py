"""Growth and removal on planted cases: a ball beside the head, a patch that is gone, and an edit of colours."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edit3dgs_ns.edit_training.growth.grower import UNEDITED_FILE, Grower
from edit3dgs_ns.edit_training.growth.removal import gone
from edit3dgs_ns.edit_training.growth.seeds import Seeds
from edit3dgs_ns.edit_training.growth.seen import SeenView
from edit3dgs_ns.edit_training.growth.surface import visible
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.splats.appending import append_gaussians
from edit3dgs_ns.splats.binding import TriangleFrames, local_to_world
from edit3dgs_ns.splats.carriers import Carriers, local_points, world_points
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians
from edit3dgs_ns.training.frozen_copy import frozen_avatar
from tests.coloured_avatar import HEAD
from tests.tiny_capture import write_tiny_capture

BALL = (0.2, 0.9, 0.3)
RADIUS, VOXEL = 0.02, 0.004
SIZE = 96


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    """Model and datamanager of an avatar with one Gaussian on every face, and what 20 views of it show."""
    from edit3dgs_ns.runs.trained_run import TrainedRun
    from tests.coloured_avatar import import_coloured_avatar

    folder = tmp_path_factory.mktemp("grown")
    union = write_tiny_capture(folder / "capture", size=SIZE, cameras=6, timesteps=2, samples=1).union
    pipeline = TrainedRun(import_coloured_avatar(union, folder)).pipeline
    return pipeline.model, pipeline.datamanager


@torch.no_grad()
def shows(model, datamanager, index: int) -> Tensor:
    """A training view of an avatar, as bytes."""
    image = model.get_outputs(datamanager.train_camera([index]))["rgb"]
    return (image * 255).round().to(torch.uint8)


def with_more(model, seeds: Seeds):
    """A copy of an avatar with more Gaussians."""
    copy = frozen_avatar(model)
    append_gaussians(
        copy.gauss_params, {}, copy.strategy_state, seeds.rows(dict(copy.gauss_params.items())), seeds.binding
    )
    copy.binding = copy.strategy_state["binding"]
    copy.forget_shown()
    return copy


def planted_at(model, points: Tensor, scale: float, color: tuple[float, ...]) -> Seeds:
    """Opaque Gaussians of one size (metres) and colour around points at rest."""
    carriers = Carriers.of(model.head)
    faces = carriers.choose(points)
    scales = torch.log(scale / carriers.rest.size[faces])[:, None].expand(-1, 3).contiguous()
    return Seeds(
        faces,
        local_points(points, faces, carriers.rest),
        scales,
        torch.tensor(color).expand(len(points), 3),
        0.98,
    )


def on_sphere(center: Tensor, radius: float, count: int = 600) -> Tensor:
    """Even points (a Fibonacci lattice)."""
    k = torch.arange(count) + 0.5
    z, angle = 1 - 2 * k / count, k * torch.pi * (1 + 5**0.5)
    flat = (1 - z * z).sqrt()
    return center + radius * torch.stack([flat * angle.cos(), flat * angle.sin(), z], dim=1)


def restore(datamanager) -> None:
    """All views are unedited again."""
    for index in datamanager.replaced_indices():
        datamanager.restore_image(index)


def grown(case, original, edited, tmp_path, **options):
    """What a look does to a copy of `original`, all views of which are edited to what `edited` shows."""
    _, datamanager = case
    model = frozen_avatar(original)
    model.requires_grad_(True)
    datamanager.use_originals(lambda index: shows(original, datamanager, index).numpy())
    restore(datamanager)
    grower = Grower(model, datamanager, **{"budget": 0.5, "held_faces": None, "folder": tmp_path, **options})
    grower.begin()
    for index in range(len(datamanager.train_dataset)):
        image = shows(edited, datamanager, index) if isinstance(edited, torch.nn.Module) else edited(index)
        datamanager.replace_image(index, image)
    optimizers = {name: torch.optim.Adam([p], lr=0.0) for name, p in model.gauss_params.items()}
    for name, optimizer in optimizers.items():  # moments that must stay with their rows
        model.gauss_params[name].grad = model.gauss_params[name].detach().clone()
        optimizer.step()
    try:
        change = grower.look(optimizers)
    finally:
        datamanager.use_originals(None)
    for name, optimizer in optimizers.items():
        parameter = model.gauss_params[name]
        assert optimizer.param_groups[0]["params"][0] is parameter
        assert optimizer.state[parameter]["exp_avg"].shape == parameter.shape
    assert len(model.binding) == model.num_points
    return model, change, optimizers


def rest_of(model) -> Tensor:
    p = model.gauss_params
    return local_to_world(
        p["means"], p["quats"], p["scales"], model.binding, model.head.rest_frames()
    ).means.detach()


@pytest.fixture(scope="module")
def ball(case):
    """A ball above one side of the head: an avatar that has it, and its middle at rest."""
    model, _ = case
    top = model.head.canonical_vertices().detach()
    center = top[top[:, 1].argmax()] + torch.tensor([0.03, 0.012, 0.02])
    return with_more(model, planted_at(model, on_sphere(center, RADIUS), 0.002, BALL)), center


@pytest.fixture(scope="module")
def grown_ball(case, ball, tmp_path_factory):
    """What a look at views with the ball has made of the avatar without."""
    return grown(case, case[0], ball[0], tmp_path_factory.mktemp("ball"))


def test_a_ball_beside_the_head_grows_where_it_is(case, ball, grown_ball):
    original, (_, center) = case[0], ball
    model, change, optimizers = grown_ball
    count = original.num_points
    assert change is not None and change.removed == 0 and change.added == model.num_points - count >= 20
    for name, value in model.gauss_params.items():
        assert torch.equal(value[:count], original.gauss_params[name])
        moments = optimizers[name].state[value]["exp_avg"]
        assert (
            torch.allclose(moments[:count], 0.1 * original.gauss_params[name]) and not moments[count:].any()
        )
    distance = (rest_of(model)[count:] - center).norm(dim=1)
    # A ball of one colour, seen from a quarter of the circle in pixels of 4 mm: silhouettes leave a bulge of 0.4 radii.
    assert distance.max() < 1.42 * RADIUS + 0.008 + 2 * VOXEL and (distance - RADIUS).abs().median() < 0.013
    color = model.gauss_params["features_dc"][count:].detach() * 0.28209479177387814 + 0.5
    assert (color - torch.tensor(BALL)).abs().median(dim=0).values.max() < 0.05


def test_another_number_of_gaussians_loads_is_exported_and_undone_exactly(case, grown_ball):
    original, model = case[0], grown_ball[0]
    before, after = original.state_dict(), model.state_dict()
    shown = frozen_avatar(original, after)
    assert shown.num_points == model.num_points > original.num_points
    bound = RiggedGaussians.from_state(after, HEAD).bound()
    assert torch.equal(bound.binding, model.binding) and torch.equal(bound.means, model.gauss_params["means"])
    shown.load_state_dict(before)
    assert all(torch.equal(value, before[name]) for name, value in shown.state_dict().items())


def test_the_grown_ball_stays_one_piece_in_every_pose(case, grown_ball):
    original, (model, _, _) = case[0], grown_ball
    count, local = original.num_points, model.gauss_params["means"].detach()
    rest = rest_of(model)[count:]
    apart = torch.cdist(rest, rest)
    for time in (0.0, 0.4, 1.0):
        posed = world_points(local[count:], model.binding[count:], model.head.frames_at(time)).detach()
        assert (torch.cdist(posed, posed) - apart).abs().max() < 0.003


def test_the_budget_bounds_what_grows(case, ball, tmp_path):
    original, (truth, _) = case[0], ball
    _, change, _ = grown(case, original, truth, tmp_path, budget=12 / original.num_points)
    assert change is not None and change.added == 12


def test_held_faces_carry_nothing_new(case, ball, tmp_path):
    original, (truth, _) = case[0], ball
    top = original.head.canonical_vertices().detach()[original.head.faces].mean(dim=1)[:, 1]
    held = (top > top.quantile(0.7)).numpy()
    model, change, _ = grown(case, original, truth, tmp_path, held_faces=held)
    assert change is not None and change.added > 0
    assert not held[model.binding[original.num_points :].numpy()].any()


def test_an_edit_of_colours_adds_and_removes_nothing(case, tmp_path):
    original, datamanager = case

    def tinted(index: int) -> Tensor:
        image = shows(original, datamanager, index).float() / 255
        head = image.amin(dim=-1, keepdim=True) < 0.97
        return torch.where(head, image * torch.tensor([0.3, 0.9, 0.4]), image)

    model, change, _ = grown(case, original, tinted, tmp_path)
    assert change is None and model.num_points == original.num_points


def plain_view(original: Tensor, edited: Tensor) -> SeenView:
    """A camera at the origin that looks along z, focal length 100 pixels, with nothing before it."""
    nothing = TriangleFrames(torch.zeros(1, 3), torch.eye(3)[None], torch.ones(1))
    height, width = original.shape[:2]
    K = torch.tensor([[100.0, 0, width / 2], [0, 100.0, height / 2], [0, 0, 1]])
    clear, far = torch.zeros(height, width), torch.full((height, width), torch.inf)
    unknown = torch.full((height, width, 3), torch.nan)
    return SeenView(torch.eye(4), K, 0, nothing, edited, original, clear, far, unknown)


def test_gaussians_are_gone_where_enough_views_show_the_background():
    original, edited, green = torch.ones(32, 32, 3), torch.ones(32, 32, 3), torch.ones(32, 32, 3)
    original[8:24, 8:24] = 0.2
    edited[8:24, 16:24] = 0.2  # the left half of a square is gone
    green[8:24, 8:24] = torch.tensor([0.1, 0.8, 0.2])
    # Left, at the new outline, right, beside the square, and left but far behind.
    points = torch.tensor(
        [[-0.05, 0, 1.0], [-0.005, 0, 1.0], [0.04, 0, 1.0], [-0.13, 0, 1.0], [-0.25, 0, 5.0]]
    )
    empty, same = plain_view(original, edited), plain_view(original, green)
    agreed = gone([empty] * 3 + [same] * 9, [points] * 12)
    assert agreed.tolist() == [True, False, False, False, True]
    assert not gone([empty] * 2 + [same] * 9, [points] * 11).any()
    # Three of 61 are less than one in twenty; cameras that do not show a point have no say.
    assert not gone([empty] * 3 + [same] * 58, [points] * 61).any()
    away = [points + torch.tensor([0.0, 0, -20])] * 58
    assert gone([empty] * 3 + [same] * 58, [points] * 3 + away).tolist() == agreed.tolist()


def test_a_run_that_goes_on_without_the_avatar_before_its_edits_is_refused(case, tmp_path):
    model, datamanager = case
    datamanager.replace_image(0, shows(model, datamanager, 0))
    try:
        with pytest.raises(UserError, match=rf"{UNEDITED_FILE} is missing.*--pipeline\.avatar"):
            Grower(frozen_avatar(model), datamanager, 0.5, None, tmp_path / "new", tmp_path).begin()
    finally:
        restore(datamanager)


def test_too_few_edited_views_for_form_are_said_at_the_end(case, tmp_path, capsys):
    model, datamanager = case
    restore(datamanager)
    grower = Grower(frozen_avatar(model), datamanager, 0.5, None, tmp_path)
    assert grower.look({}) is None and "views are edited" not in capsys.readouterr().out
    assert grower.look({}, last=True) is None and "Only 0 views are edited" in capsys.readouterr().out


def test_views_with_a_painted_background_are_left_aside(case, tmp_path):
    original = case[0]
    size = (SIZE, SIZE, 3)

    def noise(index: int) -> Tensor:
        return torch.randint(0, 256, size, dtype=torch.uint8, generator=torch.Generator().manual_seed(index))

    _, change, _ = grown(case, original, noise, tmp_path)
    assert change is None


def test_voxels_behind_others_are_not_visible():
    blank = torch.ones(32, 32, 3)
    points = torch.tensor([[0.0, 0, 1.0], [0.0, 0, 1.01], [0.0, 0, 1.05], [5.0, 0, 1.0]])
    assert visible(points, 0.01, plain_view(blank, blank))[0].tolist() == [True, True, False, False]
