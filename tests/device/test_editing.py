"""`ns-train edit3dgs` with avatar and editor on a (pretended) CUDA device: rounds are rendered, edited, stored and trained on."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nerfstudio.engine.trainer import Trainer
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from edit3dgs_ns.editing.agreement.sharing import SharingOptions
from edit3dgs_ns.editing.diffusion.loading import load_editor
from edit3dgs_ns.editing.editor import EditRequest
from edit3dgs_ns.editing.store import EditStore
from edit3dgs_ns.method_configs.edit3dgs import edit3dgs
from tests.device.test_training import left_on_the_cpu, make_config, start
from tests.tiny_capture import TinyCapture
from tests.tiny_editor import save_tiny_editor

PROMPT = "make him look older"


@pytest.fixture(scope="module")
def editor_folder(tmp_path_factory: Any) -> Path:
    settings = {"steps": 2, "guidance_scale": 2.0, "image_guidance_scale": 1.0}
    return save_tiny_editor(tmp_path_factory.mktemp("editor"), settings=settings)


@pytest.fixture(scope="module")
def avatar(tiny_capture: TinyCapture, tmp_path_factory: Any) -> Path:
    config = make_config(tiny_capture.union, tmp_path_factory.mktemp("avatar"), "cpu")
    config.max_num_iterations = 1
    trainer = start(config)
    trainer.train()
    return trainer.base_dir


def edit(
    device: str, capture: Path, avatar: Path, editor: Path, output: Path
) -> tuple[Trainer, dict[int, np.ndarray]]:
    """One round, and a step on its edits, which are given by view, too."""
    config = copy.deepcopy(edit3dgs.config)
    config.output_dir, config.machine.device_type = output / device, device
    pipeline = config.pipeline
    pipeline.datamanager.dataparser.data, pipeline.model.prompt = capture, PROMPT
    pipeline.avatar, pipeline.editor.model, pipeline.editor.dtype = avatar, str(editor), "float32"
    pipeline.editor.correspondence, pipeline.editor.keep = "rig", "eyes,mouth"
    pipeline.rounds, pipeline.edit_every, pipeline.final_steps, pipeline.views_per_edit = 1, 1, 0, 2
    config.set_timestamp()
    trainer = start(config)
    trainer.train()
    (folder,) = (trainer.base_dir / "edits").iterdir()
    store = EditStore(folder, json.loads((folder / "manifest.json").read_text())["settings"])
    return trainer, {view: store.get(key).astype(np.float32) / 255 for view, key in store.latest().items()}


def test_a_round_edits_as_on_the_cpu(
    tiny_capture: TinyCapture,
    avatar: Path,
    editor_folder: Path,
    tmp_path: Path,
    cuda_with_gsplat: Callable[..., Any],
) -> None:
    """Canonical maps, masks of the rig, renders, the editor with shared attention and kept parts, the swap, a step."""
    with cuda_with_gsplat():
        trainer, mine = edit("cuda", tiny_capture.union, avatar, editor_folder, tmp_path)
        assert left_on_the_cpu(trainer) == []
        assert trainer.pipeline._editor.inner.unet.device.type == "cuda"
        assert trainer.pipeline.datamanager.replaced_indices() == sorted(mine) and len(mine) == 2
    _, theirs = edit("cpu", tiny_capture.union, avatar, editor_folder, tmp_path)
    assert mine.keys() == theirs.keys()
    for view, image in mine.items():
        assert np.abs(image - theirs[view]).mean() < 1e-3


def make_request() -> EditRequest:
    images = np.random.default_rng(7).random((2, 2, 40, 32, 3), dtype=np.float32)
    turned = np.array([[0.8, 0, 0.6, 0.6], [0, 1, 0, 0], [-0.6, 0, 0.8, 0.8], [0, 0, 0, 1]], np.float32)
    straight = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 1]], np.float32)
    K = np.array([[50, 0, 16], [0, 50, 20], [0, 0, 1]], np.float32)
    return EditRequest(PROMPT, *images, c2w=np.stack([straight, turned]), K=np.stack([K, K]), noise=0.6)


def test_the_editor_gives_the_same_on_both_devices(
    editor_folder: Path, cuda_with_gsplat: Callable[..., Any]
) -> None:
    sharing = SharingOptions("epipolar", views_per_key=2, self_attention_below=0)
    expected = load_editor(editor_folder, dtype="float32", sharing=sharing).edit(make_request()).images
    with cuda_with_gsplat():
        editor = load_editor(editor_folder, device="cuda", dtype="float32", sharing=sharing)
        np.testing.assert_allclose(editor.edit(make_request()).images, expected, atol=1e-3)


def test_half_precision_is_the_default_there(
    editor_folder: Path, cuda_with_gsplat: Callable[..., Any]
) -> None:
    with cuda_with_gsplat():
        editor = load_editor(editor_folder, device="cuda")
        assert editor.settings["dtype"] == "float16"
        images = editor.edit(make_request()).images
    assert images.dtype == np.float32 and np.isfinite(images).all() and images.std() > 0


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_part_on_the_cpu_is_found(
    part: str, editor_folder: Path, cuda_with_gsplat: Callable[..., Any]
) -> None:
    """That the tests above can fail."""
    with cuda_with_gsplat():
        editor = load_editor(editor_folder, device="cuda", dtype="float32")
        getattr(editor, part).to("cpu")
        with pytest.raises(FakeTensorDeviceMismatchError):
            editor.edit(make_request())
