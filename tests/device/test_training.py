"""`ns-train` with everything on a (pretended) CUDA device: no tensor is left on the CPU, and the outcome is the CPU's."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from nerfstudio.engine.trainer import Trainer
from nerfstudio.utils import writer
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorDeviceMismatchError

from edit3dgs_ns.method_configs.rigged_splatfacto_fast import rigged_splatfacto_fast
from tests.device.pretend_cuda import value_of
from tests.tiny_capture import TinyCapture

MOST = 12_600
MESSAGE = "on the same device|is on c.*; expected one device|cuda.* to numpy"
BUILT_FROM = ("model.kwargs", "model.scene_box", "model.background_color")
STEPS = 4
"""The third grows and prunes; the fourth has one more degree of spherical harmonics."""


def make_config(capture: Path, output: Path, device: str) -> Any:
    config = copy.deepcopy(rigged_splatfacto_fast.config)
    config.output_dir, config.max_num_iterations, config.machine.device_type = output, STEPS, device
    config.pipeline.datamanager.dataparser.data = capture
    model = config.pipeline.model
    model.warmup_length, model.refine_every, model.sh_degree_interval = 1, 2, 3
    model.densify_grad_thresh, model.max_gaussians, model.cull_alpha_thresh = 1e-5, MOST, 0.092
    model.initial_opacity, model.opacity_loss_weight = 0.1, 0.0
    config.set_timestamp()
    return config


def start(config: Any) -> Trainer:
    """A trainer that is ready for its first step."""
    writer.EVENT_WRITERS.clear()
    writer.EVENT_STORAGE.clear()
    torch.manual_seed(0)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    return trainer


def tensors(root: Any, name: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Tensor]]:
    """Every tensor below an object: parameters, buffers, plain attributes, and what lies in containers."""
    seen = set() if seen is None else seen
    if id(root) in seen:
        return
    seen.add(id(root))
    if isinstance(root, Tensor):
        yield name, root
    elif isinstance(root, (list, tuple)):
        for number, item in enumerate(root):
            yield from tensors(item, f"{name}[{number}]", seen)
    elif isinstance(root, dict):
        for key, item in root.items():
            yield from tensors(item, f"{name}.{key}", seen)
    elif isinstance(root, nn.Module) or hasattr(root, "__dataclass_fields__"):
        yield from tensors(vars(root), name, seen)
    elif isinstance(root, torch.optim.Optimizer):
        yield from tensors(dict(enumerate(root.state.values())), name, seen)


def left_on_the_cpu(trainer: Trainer) -> list[str]:
    found = [*tensors(trainer.pipeline.model, "model"), *tensors(trainer.optimizers.optimizers, "optimizers")]
    assert len(found) > 40
    left = [name for name, tensor in found if tensor.device.type == "cpu"]
    # What the model was built from stays where it was; Adam counts its steps on the CPU.
    return [name for name in left if not name.startswith(BUILT_FROM) and not name.endswith(".step")]


@pytest.fixture(scope="module")
def runs(tiny_capture: TinyCapture, tmp_path_factory: Any, cuda_with_gsplat: Callable[..., Any]) -> Any:
    """What training gives on the CPU and on the pretended device: Gaussians, an evaluation image, its metrics."""
    outcomes = {}
    for device in ("cpu", "cuda"):
        config = make_config(tiny_capture.union, tmp_path_factory.mktemp(device), device)
        with cuda_with_gsplat() if device == "cuda" else nullcontext():
            trainer = start(config)
            before = left_on_the_cpu(trainer) if device == "cuda" else []
            trainer.train()
            model: Any = trainer.pipeline.model.eval()
            camera, batch = trainer.pipeline.datamanager.next_eval_image(0)
            outputs = model.get_outputs_for_camera(camera)
            metrics, _ = model.get_image_metrics_and_images(outputs, batch)
            outcomes[device] = {
                "left": [] if device == "cpu" else [*before, *left_on_the_cpu(trainer)],
                "devices": {t.device.type for t in outputs.values()},
                "image": value_of(outputs["rgb"]),
                "depth": value_of(outputs["depth"]),
                "metrics": metrics,
                "binding": value_of(model.binding),
                "checkpoint": next(trainer.checkpoint_dir.glob("*.ckpt")),
                "faces": len(model.head.faces),
            }
    return outcomes


def test_nothing_is_left_on_the_cpu(runs: Any) -> None:
    assert runs["cuda"]["left"] == []
    assert runs["cuda"]["devices"] == {"cuda"}


def test_gaussians_grew_and_were_pruned_as_on_the_cpu(runs: Any) -> None:
    faces = list(range(runs["cpu"]["faces"]))
    for device in ("cpu", "cuda"):
        binding = runs[device]["binding"].tolist()
        assert binding != faces and len(binding) < MOST  # some grew, and some of all of these were pruned
        assert set(binding) == set(faces)
    assert abs(len(runs["cuda"]["binding"]) - len(runs["cpu"]["binding"])) <= 20


def test_the_avatar_looks_as_on_the_cpu(runs: Any) -> None:
    """Not to the bit: SSIM is another implementation there, and Adam makes a step of the smallest gradient."""
    mine, theirs = runs["cuda"], runs["cpu"]
    assert (mine["image"] - theirs["image"]).abs().mean() < 5e-3
    assert (mine["depth"] - theirs["depth"]).abs().median() < 1e-3
    assert mine["metrics"]["psnr"] == pytest.approx(theirs["metrics"]["psnr"], abs=0.3)
    assert mine["metrics"]["ssim"] == pytest.approx(theirs["metrics"]["ssim"], abs=0.02)


def test_a_checkpoint_of_one_device_goes_on_on_the_other(
    runs: Any, tiny_capture: TinyCapture, tmp_path: Path, cuda_with_gsplat: Callable[..., Any]
) -> None:
    config = make_config(tiny_capture.union, tmp_path, "cuda")
    config.load_checkpoint, config.max_num_iterations = runs["cpu"]["checkpoint"], 1
    with cuda_with_gsplat():
        trainer = start(config)
        assert torch.equal(value_of(trainer.pipeline.model.binding), runs["cpu"]["binding"])
        trainer.train()
        assert left_on_the_cpu(trainer) == []


def _cpu(module: Any, name: str) -> None:
    setattr(module, name, getattr(module, name).cpu())


def _cpu_parameter(parameters: nn.ParameterDict, name: str) -> None:
    parameters[name] = nn.Parameter(parameters[name].cpu())


MUTATIONS: dict[str, Callable[[Any], object]] = {
    "means": lambda model: _cpu_parameter(model.gauss_params, "means"),
    "opacities": lambda model: _cpu_parameter(model.gauss_params, "opacities"),
    "features_rest": lambda model: _cpu_parameter(model.gauss_params, "features_rest"),
    "binding": lambda model: _cpu(model, "binding"),
    "shape of the head": lambda model: (_cpu(model.head, "shape"), model.head.forget_shape()),
    "offset of the head": lambda model: (_cpu(model.head, "static_offset"), model.head.forget_shape()),
    "expression": lambda model: _cpu_parameter(model.head.pose, "expr"),
    "skinning weights": lambda model: _cpu(model.head.flame, "weights"),
    "faces": lambda model: _cpu(model.head.flame, "faces"),
}


@pytest.fixture(scope="module")
def started(tiny_capture: TinyCapture, tmp_path_factory: Any, cuda_with_gsplat: Callable[..., Any]) -> Any:
    with cuda_with_gsplat():
        return start(make_config(tiny_capture.union, tmp_path_factory.mktemp("started"), "cuda"))


@pytest.mark.parametrize("mutation", [None, *MUTATIONS])
def test_one_tensor_on_the_cpu_is_found(
    mutation: str | None, started: Any, cuda_with_gsplat: Callable[..., Any]
) -> None:
    """That the tests above can fail: a step with any one of these tensors moved to the CPU does."""
    with cuda_with_gsplat():
        model = copy.deepcopy(started.pipeline.model)
        camera, batch = started.pipeline.datamanager.next_train(0)

        def step() -> None:
            outputs = model.get_outputs(camera)
            sum(model.get_loss_dict(outputs, batch).values()).backward()

        if mutation is None:
            step()
            return
        MUTATIONS[mutation](model)
        with pytest.raises((FakeTensorDeviceMismatchError, ValueError, TypeError), match=MESSAGE):
            step()
