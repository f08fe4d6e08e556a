"""The readers of the project, each with a sound file to spoil, and what is sound in what it returns."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from edit3dgs_ns.flame.arkit import ARKIT_NAMES
from edit3dgs_ns.flame.assets import FlameAssets
from edit3dgs_ns.flame.loading import OPEN_HEAD_PATH, load_assets
from edit3dgs_ns.flame.motion import FlameMotion
from tools.measure.fuzz.hostile import (
    VALUES,
    Runs,
    damaged,
    json_files,
    npz_files,
    pickle_files,
    spoilt_table,
    spoilt_text,
)


@dataclass(frozen=True)
class Reader:
    """One reader."""

    name: str
    file: str
    """What the file is called."""
    files: Callable[[], SearchStrategy[bytes]]
    """Contents to try."""
    read: Callable[[Path], Any]
    is_sound: Callable[[Any], bool]
    """Whether what was read can be used."""


# -- what is sound --------------------------------------------------------------------------------------------------------


def _finite(*values: Any) -> bool:
    return all(bool(np.isfinite(np.asarray(value)).all()) for value in values if value is not None)


def _sound_motion(motion: FlameMotion) -> bool:
    return len(motion) > 0 and _finite(*(value for value in vars(motion).values()))


def _sound_frames(frames: list[Any]) -> bool:
    return all(
        _finite(f.c2w, f.fx, f.fy, f.cx, f.cy) and f.fx > 0 and f.fy > 0 and min(f.width, f.height) > 0
        for f in frames
    )


def _sound_splats(params: dict[str, Any]) -> bool:
    return _finite(*(value.detach() for value in params.values()))


def _sound_avatar(avatar: Any) -> bool:
    binding, faces = avatar.binding, len(avatar.head.faces)
    is_bound = len(binding) > 0 and int(binding.min()) >= 0 and int(binding.max()) < faces
    return (
        is_bound and 0 <= avatar.sh_degree <= 3 and _sound_splats(dict(avatar.params)) and _drawable(avatar)
    )


def _drawable(avatar: Any) -> bool:
    shown = avatar.splats(avatar.head.motion().pose([0]))
    return _finite(shown.gaussians.means.detach())


# -- sound files ----------------------------------------------------------------------------------------------------------


@cache
def open_head() -> FlameAssets:
    """The embedded head."""
    return load_assets(OPEN_HEAD_PATH)


def _motion_table(frames: int = 2) -> dict[str, np.ndarray]:
    widths = {"expr": 5, "rotation": 3, "neck_pose": 3, "jaw_pose": 3, "eyes_pose": 6, "translation": 3}
    table = {name: np.zeros((frames, width), np.float32) for name, width in widths.items()}
    return table | {"shape": np.zeros(4, np.float32), "static_offset": np.zeros((1, 6, 3), np.float32)}


def _benchmark_table() -> dict[str, np.ndarray]:
    widths = {"expression": 5, "rotation": 3, "translation": 3, "jaw": 3, "neck": 3, "eyes": 6}
    table = {name: np.zeros((2, width), np.float32) for name, width in widths.items()}
    return table | {"shape": np.zeros((1, 4), np.float32), "scale": np.ones((1, 1), np.float32)}


def _deca_table() -> dict[str, np.ndarray]:
    return {
        "shape": np.zeros((2, 4), np.float32),
        "exp": np.zeros((2, 5), np.float32),
        "pose": np.zeros((2, 6), np.float32),
    }


def _head_table() -> dict[str, np.ndarray]:
    """A head of eight vertices, with FLAME's keys."""
    generator = np.random.default_rng(0)
    vertices = 8
    return {
        "v_template": generator.normal(size=(vertices, 3)),
        "f": np.array([[0, 1, 2], [2, 3, 4], [4, 5, 6], [5, 6, 7]]),
        "shapedirs": generator.normal(size=(vertices, 3, 400)).astype(np.float32),
        "posedirs": np.zeros((vertices, 3, 36), np.float32),
        "J_regressor": np.full((5, vertices), 1 / vertices),
        "weights": np.full((vertices, 5), 0.2),
        "kintree_table": np.array([[-1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]),
    }


def _transforms() -> dict[str, Any]:
    frame = {
        "file_path": "images/00000_00.png",
        "fg_mask_path": "fg_masks/00000_00.png",
        "flame_param_path": "flame_param/00000.npz",
        "timestep_index": 0,
        "camera_index": 0,
        "transform_matrix": np.eye(4).tolist(),
        "cx": 8.0,
        "cy": 8.0,
        "fl_x": 30.0,
        "camera_angle_y": 0.5,
        "w": 16,
        "h": 16,
    }
    return {"frames": [frame, dict(frame, camera_index=1)], "timestep_indices": [0]}


def _camera_path() -> dict[str, Any]:
    camera = {
        "camera_to_world": np.eye(4).reshape(-1).tolist(),
        "fov": 50.0,
        "aspect": 1.0,
        "render_time": 0.0,
    }
    return {
        "camera_type": "perspective",
        "render_height": 64,
        "render_width": 64,
        "fps": 24,
        "seconds": 1.0,
        "is_cycle": False,
        "camera_path": [camera, dict(camera, render_time=1.0)],
    }


def _history() -> dict[str, Any]:
    version = {
        "number": 0,
        "parent": None,
        "prompt": None,
        "made": "2026-01-01",
        "step": 3,
        "sha256": "0",
        "options": {},
    }
    return {
        "current": 0,
        "pending": None,
        "versions": [version, dict(version, number=1, parent=0, prompt="older")],
    }


def _rounds() -> dict[str, Any]:
    judged = {
        "refused": {"too_far": 1},
        "mended": 0,
        "edited_again": 1,
        "left_out": [{"view": 1, "fault": "x"}],
    }
    batch = {"round": 0, "views": [0, 1], "seconds": 1.5, "unet_evaluations": 3, "judged": judged}
    return {"prompt": "older", "rounds": 1, "editor": {}, "batches": [batch]}


def _model_index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionInstructPix2PixPipeline",
        "_diffusers_version": "0.39.0",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
        "safety_checker": [None, None],
    }


def _ply(bound: bool) -> bytes:
    from edit3dgs_ns.splats.ply import bound_properties

    names = bound_properties(45)[: None if bound else -1]
    header = ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    header += [*(f"property float {name}" for name in names), "end_header", ""]
    return "\n".join(header).encode() + np.zeros((2, len(names)), "<f4").tobytes()


def _ply_files(bound: bool) -> SearchStrategy[bytes]:
    sound = _ply(bound)
    head, end, body = sound.partition(b"end_header\n")
    numbers = ("9" * 5000, "-1", "0", "1e9", "4294967296", "99999999999", "x", "")
    others = st.sampled_from(numbers).map(lambda n: sound.replace(b"vertex 2", f"vertex {n}".encode()))
    values = st.binary(min_size=len(body), max_size=len(body)).map(lambda b: head + end + b)
    lines = spoilt_text(head.decode(), ("double x", "float x", "list uchar int x", "float", "element face 3"))
    return st.one_of(damaged(sound), others, values, lines.map(lambda text: text + end + body))


@cache
def _avatar_state() -> dict[str, torch.Tensor]:
    from edit3dgs_ns.splats.ply import BoundGaussians
    from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians

    count, head = 6, open_head()
    gaussians = BoundGaussians(
        torch.zeros(count, 3), torch.zeros(count, 3), torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        torch.zeros(count, 3), torch.zeros(count, 15, 3), torch.zeros(count, 1), torch.arange(count),
    )  # fmt: skip
    motion = FlameMotion.zeros(2, head.shapedirs.shape[2], head.exprdirs.shape[2])
    return RiggedGaussians.from_files(gaussians, motion, head).state()


def _checkpoint_bytes(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def _checkpoint_files() -> SearchStrategy[bytes]:
    state = {name: value.numpy() for name, value in _avatar_state().items()}

    def checkpoint(table: dict[str, Any]) -> dict[str, Any]:
        values = {}
        for name, array in table.items():
            kept = isinstance(array, np.ndarray) and array.dtype.kind in "fiubc" and array.dtype != np.uint64
            if kept and array.dtype == np.float64:  # as avatars are stored; other types come from elsewhere
                with np.errstate(over="ignore"):
                    array = array.astype(np.float32)
            values[f"_model.{name}"] = torch.from_numpy(np.array(array)) if kept else str(array)
        return {"step": 3, "pipeline": values, "optimizers": {}, "schedulers": {}, "scalers": {}}

    sound = checkpoint(state)
    others: list[Any] = [
        Runs(),
        {**sound, "x": Runs()},
        {**sound, "pipeline": {}},
        {**sound, "pipeline": None},
    ]
    others += [{**sound, "pipeline": {3: torch.zeros(2)}}, 3, None, [], {}, {**sound, "step": "x"}]
    return st.one_of(
        spoilt_table(state).map(lambda table: _checkpoint_bytes(checkpoint(table))),
        damaged(_checkpoint_bytes(sound)),
        st.sampled_from(others).map(_checkpoint_bytes),
        st.just(b"").map(bytes),
    )


def _read_checkpoint(path: Path) -> Any:
    from edit3dgs_ns.splats.checkpoints import model_state, read_checkpoint
    from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians

    return RiggedGaussians.from_state(model_state(read_checkpoint(path, "--load-config")), open_head())


@cache
def _config_text() -> str:
    import yaml

    from edit3dgs_ns.method_configs.edit3dgs import edit3dgs

    return str(yaml.dump(edit3dgs.config))


_TAGS = (
    "!!python/object/apply:os.system [touch x]",
    "!!python/object/apply:builtins.open [a_file_of_the_fuzzer_was_run, w]",
    "!!python/object/new:os.system [x]",
    "!!python/name:os.system ''",
    "!!python/module:os ''",
    "!!python/name:nerfstudio.utils.scripts.run_command ''",
    "!!python/name:edit3dgs_ns.__main__.main ''",
    "!!python/object:pathlib.Path {}",
    "!!python/object/apply:pathlib.WindowsPath ['C:\\', a]",
    "!!python/object/apply:pathlib.PosixPath [1]",
    "!!python/object/apply:nerfstudio.utils.writer.EventName [no]",
    "!!python/tuple [1]",
    "!!python/tuple x",
    "!!python/object:edit3dgs_ns.training.model.RiggedSplatfactoModelConfig {}",
    "!!python/object:edit3dgs_ns.training.model.RiggedSplatfactoModelConfig [1]",
    "!!python/object:edit3dgs_ns.training.model.RiggedSplatfactoModel {}",
    "!!binary x", "!!timestamp x", "!!int x", "&a [*a]", "*nothing", "[" * 2000, "{", "'", "", "- x", "1e400", ".nan", "null",
    "yes",
    "9" * 5000, "\0", "2026-99-99",
)  # fmt: skip


def _plan_text() -> str:
    return "\n".join(
        [
            'output = "out"', "seeds = [0, 1]", 'editors = ["demo"]', 'source_caption = "a man"', 'workers = "1"',
            "[[subjects]]", 'name = "one"', 'data = "."',
            "[[prompts]]", 'prompt = "Make him older"', 'target_caption = "an old man"',
        ]
    )  # fmt: skip


def _images() -> SearchStrategy[bytes]:
    found = []
    kinds = {"RGB": "PNG", "RGBA": "PNG", "L": "JPEG", "P": "GIF", "F": "TIFF", "I;16": "PNG", "CMYK": "TIFF"}
    for mode, kind in kinds.items():
        file = io.BytesIO()
        Image.new(mode, (8, 6)).save(file, kind)
        found.append(file.getvalue())
    return st.one_of([damaged(data) for data in found])


def _arkit_csv() -> SearchStrategy[bytes]:
    header = ["Timecode", "BlendshapeCount", *(name[0].upper() + name[1:] for name in ARKIT_NAMES)]
    row = ["00:00:00:00.1", "52", *["0.1"] * len(ARKIT_NAMES)]
    text = "\n".join([",".join(header), ",".join(row), ",".join(row)])
    pieces = ("nan", "1e400", "9" * 5000, "x" * 140_000, '"', "", ",", "\0", "-5", "é", "Timecode", "\ud800")
    return st.one_of(damaged(text.encode()), spoilt_text(text, pieces))


def _safetensors_bytes() -> bytes:
    from safetensors.torch import save

    return bytes(save({"weight": torch.zeros(2, 3)}))


def _yaml_files() -> SearchStrategy[bytes]:
    return st.one_of(spoilt_text(_config_text(), _TAGS), damaged(_config_text().encode()))


# -- the readers ----------------------------------------------------------------------------------------------------------


def _read_frames(path: Path) -> list[Any]:
    from edit3dgs_ns.capture.transforms import FrameEntry, each_frame, read_transforms

    return [frame for frame in each_frame(read_transforms(path), path) if isinstance(frame, FrameEntry)]


def _read_motion(path: Path) -> FlameMotion:
    from edit3dgs_ns.flame.motion_files import read_motion_file

    return read_motion_file(path, _flame_like()).motion


@cache
def _flame_like() -> FlameAssets:
    from dataclasses import replace

    return replace(open_head(), name="flame")


def _read_arkit(path: Path) -> FlameMotion:
    from edit3dgs_ns.flame.motion_files import read_motion_file

    return read_motion_file(path, open_head()).motion


def _read_history(path: Path) -> Any:
    from edit3dgs_ns.edit_training.versions import RunHistory

    history = RunHistory(path.parent.parent)
    return history.versions, history.current, history.chain()


def _read_rounds(path: Path) -> Any:
    from edit3dgs_ns.edit_training.history import History

    history = History(path.with_name("new.json"), "older", 1, 0, {})
    history.read_batches(path)
    history.save()
    return history.left_out(0)


def _read_config(path: Path) -> Any:
    from edit3dgs_ns.runs.config_file import read_config

    return read_config(path)


def _read_run_config(path: Path) -> Any:
    from edit3dgs_ns.splats.run_config import edited_avatar, read_run_config

    edited_avatar(path)
    return read_run_config(path)


def _read_path(path: Path) -> Any:
    from edit3dgs_ns.rendering.trajectories import path_fps, read_camera_path

    path_fps(path)
    return read_camera_path(path).cameras


def _read_placement(path: Path) -> Any:
    from edit3dgs_ns.runs.placement import read_placement

    return read_placement(path).head_from_background


def _read_normalisation(path: Path) -> Any:
    from edit3dgs_ns.runs.placement import read_normalisation

    return read_normalisation(path.parent)


def _read_index(path: Path) -> Any:
    from edit3dgs_ns.editing.diffusion.model_folder import check_index, read_json

    return check_index(read_json(path), path.parent)


def _read_defaults(path: Path) -> Any:
    from edit3dgs_ns.editing.diffusion.editor_defaults import EditorDefaults
    from edit3dgs_ns.editing.diffusion.model_folder import defaults_of

    return defaults_of(path.parent, None, EditorDefaults(7.5, 1.5, 20, 512))


def _read_bound(path: Path) -> Any:
    from edit3dgs_ns.splats.ply import read_bound_ply

    return vars(read_bound_ply(path))


def _read_splat(path: Path) -> Any:
    from edit3dgs_ns.splats.ply import read_splat_ply

    splats = read_splat_ply(path, "--background")
    return {"means": splats.gaussians.means, "colors": splats.colors}


def _read_masks(path: Path) -> Any:
    from edit3dgs_ns.editing.masks.grounded_sam_files import read_checkpoint

    return read_checkpoint(path, "--pipeline.editor.sam2-checkpoint")


def _read_image(path: Path) -> Any:
    from edit3dgs_ns.capture.images import read_image, read_mask

    read_mask(path)
    return read_image(path)[0]


def _read_plan(path: Path) -> Any:
    from edit3dgs_ns.sweep.plan import read_plan

    return read_plan(path).cells()


def _sound_defaults(d: Any) -> bool:
    scales = [s for s in (d.guidance_scale, d.image_guidance_scale) if s is not None]
    return _finite(*scales) and max(scales, default=0.0) < 1e4 and d.steps >= 1 and 1 <= d.resolution <= 65536


def _sound_cameras(cameras: Any) -> bool:
    sizes = (cameras.width, cameras.height)
    return _finite(cameras.camera_to_worlds, cameras.fx, cameras.fy, cameras.times) and all(
        bool((side > 0).all()) for side in (*sizes, cameras.fx, cameras.fy)
    )


def _sound_assets(head: FlameAssets) -> bool:
    return (
        _finite(head.v_template, head.shapedirs, head.weights) and int(head.faces.max()) < head.num_vertices
    )


def _always(_: Any) -> bool:
    return True


_SMALL = tuple(value for value in VALUES if value not in ("@deep", "@digits"))


def readers() -> list[Reader]:
    """All of them."""
    from edit3dgs_ns.flame.motion import FlameMotion as Motion

    frame = {name: array[:1] if array.ndim == 2 else array for name, array in _motion_table().items()}
    arkit = {
        "fps": 30,
        "frames": [{"jawOpen": 0.1, "eyeBlinkLeft": 0.0}, {"jawOpen": 0.2, "eyeBlinkLeft": 1.0}],
    }
    placement = {"scale": 0.5, "rotation": [0, 0, 0], "translation": [0, 0, 0], "coordinates": "data"}
    return [
        Reader("transforms", "transforms_train.json", lambda: json_files(_transforms()), _read_frames, _sound_frames),
        Reader("frame npz", "00000.npz", lambda: npz_files(frame), Motion.load_frame, _sound_motion),
        Reader("motion npz", "flame_param.npz", lambda: npz_files(_motion_table()), _read_motion, _sound_motion),
        Reader("benchmark npz", "tracking.npz", lambda: npz_files(_benchmark_table()), _read_motion, _sound_motion),
        Reader("DECA npz", "codes.npz", lambda: npz_files(_deca_table()), _read_motion, _sound_motion),
        Reader("DECA pickle", "codes.pkl", lambda: pickle_files(_deca_table()), _read_motion, _sound_motion),
        Reader("ARKit csv", "take.csv", _arkit_csv, _read_arkit, _sound_motion),
        Reader("ARKit json", "take.json", lambda: json_files(arkit), _read_arkit, _sound_motion),
        Reader("head npz", "head.npz", lambda: npz_files(_head_table()), load_assets, _sound_assets),
        Reader("head pickle", "head.pkl", lambda: pickle_files(_head_table()), load_assets, _sound_assets),
        Reader("avatar ply", "point_cloud.ply", lambda: _ply_files(True), _read_bound, _sound_splats),
        Reader("splat ply", "splat.ply", lambda: _ply_files(False), _read_splat, _sound_splats),
        Reader("checkpoint", "step-000000003.ckpt", _checkpoint_files, _read_checkpoint, _sound_avatar),
        Reader("safetensors", "sam.safetensors", lambda: damaged(_safetensors_bytes()), _read_masks, _always),
        Reader("config.yml", "config.yml", _yaml_files, _read_config, _always),
        Reader("config.yml as plain data", "config.yml", _yaml_files, _read_run_config, _always),
        Reader("history", "history/history.json", lambda: json_files(_history()), _read_history, _always),
        Reader("record of rounds", "edit_history.json", lambda: json_files(_rounds()), _read_rounds, _always),
        Reader("camera path", "path.json", lambda: json_files(_camera_path()), _read_path, _sound_cameras),
        Reader("placement", "place.json", lambda: json_files(placement), _read_placement, lambda s: _finite(s.matrix)),
        Reader(
            "normalisation", "dataparser_transforms.json",
            lambda: json_files({"transform": np.eye(4)[:3].tolist(), "scale": 2.0}),
            _read_normalisation, lambda s: _finite(s.matrix),
        ),
        Reader("model_index.json", "model_index.json", lambda: json_files(_model_index()), _read_index, _always),
        Reader(
            "editor defaults", "edit3dgs.json",
            lambda: json_files({"guidance_scale": 3.0, "steps": 5, "resolution": 64, "instructions": {"a": ["b"]}}),
            _read_defaults, _sound_defaults,
        ),
        Reader("image", "00000_00.png", _images, _read_image, lambda image: image.size > 0),
        Reader(
            "plan of a sweep", "plan.toml",
            lambda: st.one_of(
                damaged(_plan_text().encode()),
                spoilt_text(_plan_text(), (*map(json.dumps, _SMALL[:24]), "1e400", "nan", "[", "[[x]]", "{a = 1}")),
            ),
            _read_plan, _always,
        ),
    ]  # fmt: skip
