"""Batches share a timestep, the order is reproducible, edits replace images, memory is bounded, backgrounds turn white."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.capture.compositing import composite_over_white
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
from edit3dgs_ns.training.datamanager import AvatarDatamanager, AvatarDatamanagerConfig
from tests.tiny_capture import UNION, TinyCapture


def manager(data: Path, **options: Any) -> AvatarDatamanager:
    config = AvatarDatamanagerConfig(dataparser=NersembleDataParserConfig(data=data), **options)
    return config.setup(device="cpu")


def test_batches_share_a_timestep_and_cover_every_image(tiny_capture: TinyCapture) -> None:
    data = manager(tiny_capture.union, cameras_per_step=2)
    count, timesteps = len(data.train_dataset), data.train_dataset.metadata["timesteps"]
    seen: list[int] = []
    step = 0
    while len(seen) < count:
        camera, batch = data.next_train(step)
        indices = batch["image_idx"].tolist()
        assert len({int(timesteps[i]) for i in indices}) == 1 and len(camera) == len(indices) <= 2
        assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (len(indices), 48, 48, 3)
        torch.testing.assert_close(
            camera.camera_to_worlds, data.train_dataset.cameras.camera_to_worlds[indices]
        )
        seen += indices
        step += 1
    assert sorted(seen) == list(range(count))


def test_order_depends_on_seed_and_step_alone(tiny_capture: TinyCapture) -> None:
    first, second = manager(tiny_capture.union), manager(tiny_capture.union)
    order = [first.batch_indices(step) for step in range(60)]
    assert [second.batch_indices(step) for step in reversed(range(60))][
        ::-1
    ] == order  # a resumed run goes on alike
    assert [
        manager(tiny_capture.union, train_cameras_sampling_seed=1).batch_indices(s) for s in range(60)
    ] != order


def test_replaced_images_are_trained_on(tiny_capture: TinyCapture) -> None:
    data = manager(tiny_capture.union, cameras_per_step=1)
    original = data.train_image(4).clone()
    edited = torch.rand(48, 48, 3)
    data.replace_image(4, edited)
    torch.testing.assert_close(data.train_image(4).float() / 255, edited, atol=0.5 / 255 + 1e-6, rtol=0)
    torch.testing.assert_close(data.original_image(4), original)
    data.restrict_to([4])
    for step in range(3):
        camera, batch = data.next_train(step)
        assert batch["image_idx"].tolist() == [4] and len(camera) == 1
        torch.testing.assert_close(batch["image"][0], data.train_image(4))
    assert data.replaced_indices() == [4]
    data.restore_image(4)
    torch.testing.assert_close(data.train_image(4), original)
    with pytest.raises(ValueError, match="shape"):
        data.replace_image(4, torch.rand(10, 10, 3))
    with pytest.raises(IndexError, match="999"):
        data.replace_image(999, edited)
    with pytest.raises(ValueError, match="no images"):
        data.restrict_to([])


def test_groups_by_timestep(tiny_capture: TinyCapture) -> None:
    groups = manager(tiny_capture.union).indices_by_timestep()
    assert sorted(groups) == list(range(2 * tiny_capture.timesteps))
    assert all(len(members) == tiny_capture.cameras - 1 for members in groups.values())


def test_streaming_serves_the_same_batches(tiny_capture: TinyCapture) -> None:
    """Whether images are decoded ahead or not, kept or not: the same images in the same order."""
    plain = manager(tiny_capture.union, image_workers=0, cache_gb=1.0)
    streamed = manager(
        tiny_capture.union, image_workers=3, prefetch_steps=5, cache_gb=3 * 48 * 48 * 3 / 2**30
    )
    for step in range(40):
        (camera, batch), (other, expected) = streamed.next_train(step), plain.next_train(step)
        assert batch["image_idx"].tolist() == expected["image_idx"].tolist()
        assert torch.equal(batch["image"], expected["image"])
        assert torch.equal(camera.camera_to_worlds, other.camera_to_worlds)
    assert len(streamed._train_images) == 3  # what fits into the cache
    assert len(plain._train_images) == len(plain.train_dataset)


def test_edits_on_disk_are_streamed(tiny_capture: TinyCapture) -> None:
    """A replacement given as a function is read when needed, like the images of the capture."""
    data = manager(tiny_capture.union, cameras_per_step=1, cache_gb=0.0)
    reads: list[int] = []

    def reader(index: int, value: int, size: int = 48) -> Any:
        def read() -> np.ndarray:
            reads.append(index)
            return np.full((size, size, 3), value, np.uint8)

        return read

    original = data.train_image(4).clone()
    for index in (3, 4):
        data.replace_image(index, reader(index, 10 * index))
    data.restrict_to(data.replaced_indices())
    for step in range(6):
        _, batch = data.next_train(step)
        assert (batch["image"] == 10 * batch["image_idx"].item()).all()
    assert len(reads) >= 6 and torch.equal(data.original_image(4), original)
    data.replace_image(4, reader(4, 99))  # the newest edit counts, also where the former was decoded ahead
    assert all((data.next_train(s)[1]["image"] != 40).all() for s in range(6, 12))
    data.replace_image(4, torch.ones(48, 48, 3))
    assert (data.train_image(4) == 255).all()
    data.restore_image(4)
    assert torch.equal(data.train_image(4), original) and data.replaced_indices() == [3]
    data.replace_image(3, reader(3, 1, size=20))
    with pytest.raises(ValueError, match=r"image 3 has the shape \(20, 20, 3\), its camera \(48, 48, 3\)"):
        data.next_train(0) if data.batch_indices(0) == [3] else data.next_train(1)


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_an_image_that_breaks_in_training_names_itself(
    tiny_capture: TinyCapture, tmp_path: Path, damage: str
) -> None:
    """Found by a worker ahead of its turn, raised in training when its turn comes."""
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    data = manager(tmp_path / "capture" / UNION, cameras_per_step=1, prefetch_steps=3)
    path = data.train_dataset.image_filenames[data.batch_indices(4)[0]]
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:300])
    for step in range(4):
        data.next_train(step)
    with pytest.raises((FileNotFoundError, ValueError), match=f"{path.parent}/{path.name}"):
        data.next_train(4)


@pytest.mark.parametrize(
    ("option", "value"),
    [("cameras_per_step", 0), ("image_workers", -1), ("prefetch_steps", -1), ("cache_gb", -1.0), ("cache_gb", float("nan"))],
)  # fmt: skip
def test_impossible_options_are_refused(tiny_capture: TinyCapture, option: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"--pipeline.datamanager.{option.replace('_', '-')} .*expected"):
        manager(tiny_capture.union, **{option: value})


def test_compositing_is_rounded_exactly() -> None:
    """All colours under all coverages, against exact arithmetic."""
    colour, coverage = np.meshgrid(np.arange(256), np.arange(256))
    exact = np.round((colour * coverage + 255.0 * (255 - coverage)) / 255)
    made = composite_over_white(
        np.repeat(colour[:, :, None], 3, axis=2).astype(np.uint8), coverage.astype(np.uint8)
    )
    np.testing.assert_array_equal(made, np.repeat(exact[:, :, None], 3, axis=2))


@pytest.mark.parametrize(("composite", "expected"), [("auto", 255), ("always", 255), ("never", 30)])
def test_backgrounds_turn_white(
    tiny_capture: TinyCapture, tmp_path: Path, composite: str, expected: int
) -> None:
    """Images that show the studio are put on white with the masks."""
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    for path in (tmp_path / "capture").glob("*/images/*.png"):
        mask = np.asarray(Image.open(path.parent.parent / "fg_masks" / path.name))
        image = np.where(mask[:, :, None] == 0, 30, np.asarray(Image.open(path)))
        Image.fromarray(image.astype(np.uint8)).save(path)
    data = manager(tmp_path / "capture" / UNION, composite=composite)
    assert int(data.train_image(0)[0, 0, 0]) == expected


def test_white_backgrounds_are_left_alone(tiny_capture: TinyCapture) -> None:
    """Compositing twice would lighten the soft edge of the head."""
    data = manager(tiny_capture.union)
    stored = torch.from_numpy(np.array(Image.open(data.train_dataset.image_filenames[3])))
    torch.testing.assert_close(data.train_image(3), stored)


def test_transparent_images(tiny_capture: TinyCapture, tmp_path: Path) -> None:
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    for path in (tmp_path / "capture").glob("*/images/*.png"):
        Image.fromarray(
            np.dstack([np.full((48, 48, 3), 80, np.uint8), np.full((48, 48), 51, np.uint8)])
        ).save(path)
    data = manager(tmp_path / "capture" / UNION)
    assert (data.train_image(0) == round(0.2 * 80 + 0.8 * 255)).all()


@pytest.mark.parametrize("damage", ["truncated", "another size"])
def test_bad_images_name_themselves(tiny_capture: TinyCapture, tmp_path: Path, damage: str) -> None:
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    data = manager(tmp_path / "capture" / UNION)
    path = data.train_dataset.image_filenames[2]
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
        expected = f"{path.name} cannot be decoded"
    else:
        Image.new("RGB", (30, 20)).save(path)
        expected = f"{path.name} is 30 x 20 pixels; the capture's transforms say 48 x 48"
    with pytest.raises(ValueError, match=expected):
        data.train_image(2)


def test_empty_evaluation_split_says_so(tiny_capture: TinyCapture, tmp_path: Path) -> None:
    shutil.copytree(tiny_capture.root, tmp_path / "capture")
    union = tmp_path / "capture" / UNION
    (union / "transforms_val.json").write_text('{"frames": []}')
    data = manager(union)
    assert not data.eval_dataset  # Nerfstudio's trainer then skips evaluation
    with pytest.raises(ValueError, match="'val' has no frames"):
        list(data.fixed_indices_eval_dataloader)
