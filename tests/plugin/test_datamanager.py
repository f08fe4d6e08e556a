"""Batches share a timestep, the order is reproducible, edits replace images, memory is bounded, backgrounds turn white."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from edit3dgs_ns.datamanager import AvatarDatamanager, AvatarDatamanagerConfig, ImageCache
from edit3dgs_ns.dataparsers.nersemble import NersembleDataParserConfig
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


def test_cache_is_bounded_and_right() -> None:
    reads: list[int] = []

    def read(index: int) -> np.ndarray:
        reads.append(index)
        return np.full((2, 2, 3), index, np.uint8)

    cache = ImageCache(read, max_bytes=30)  # two images of 12 bytes
    for _ in range(3):
        for index in range(4):
            assert (cache[index] == index).all()
    assert len(cache) == 2
    assert reads.count(0) == reads.count(1) == 1 and reads.count(2) == reads.count(3) == 3


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
        expected = f"{path.name} cannot be read"
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
