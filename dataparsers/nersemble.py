"""`nersemble-data`: multi-view head captures with FLAME tracking, as VHAP exports and GaussianAvatars reads them.

Layout (one folder per sequence, and combined `UNION...` folders that hold only the three JSON files)::

    <capture>/<sequence>/images/{t:05d}_{cam:02d}.png  fg_masks/{t:05d}_{cam:02d}.png  flame_param/{t:05d}.npz
    <capture>/<sequence>/transforms_{train,val,test}.json
    <capture>/UNION10_.../transforms_{train,val,test}.json      paths inside start with ../<sequence>/

Conventions: metres; `transform_matrix` is camera-to-world with OpenGL axes; cameras are neither re-centred nor scaled, so
that they stay in the frame of the FLAME head. `times` of a camera is its place on the motion of *all* splits together:
rank of its timestep / (number of timesteps - 1), in [0, 1].
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Optional, Type  # noqa: UP035  (tyro reads these at run time)

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion

SPLITS = ("train", "val", "test")
HEAD_HALF_EXTENT = 0.3
"""Half the edge, in metres, of the scene box around the head: head, neck and hair of an adult fit."""


@dataclass
class NersembleDataParserConfig(DataParserConfig):
    """A multi-view head capture in the layout of VHAP and GaussianAvatars (NeRSemble), or from `edit3dgs capture`."""

    _target: Type = field(default_factory=lambda: NersembleDataParser)  # noqa: UP006
    """target class to instantiate"""
    data: Path = Path()
    """Folder with transforms_train.json, transforms_val.json and transforms_test.json, or its parent if that holds exactly
    one combined set (UNION...)."""
    cy: Literal["centre", "top", "bottom"] = "centre"
    """Where the principal point is: `centre` ignores cx and cy of the files (as GaussianAvatars does); `top` and `bottom` take
    them, cy measured from the top or the bottom edge of the image (VHAP exports from 2024-11-18 on: `bottom`)."""
    timestep: Optional[int] = None  # noqa: UP045
    """Use only the images of this one timestep_index; its front camera is held out for evaluation. Static methods
    (nerfacto, splatfacto, ...) need it: without it they see every expression at once and blur. Leave it out for
    rigged-splatfacto and edit3dgs."""
    use_masks: bool = False
    """Hand the foreground masks to the method as Nerfstudio masks (the method then ignores the background). rigged-splatfacto and
    edit3dgs need no masks: they put the head on white themselves."""
    flame_model: Optional[Path] = None  # noqa: UP045
    """FLAME pickle or npz that the capture was tracked with. Default: the environment's
    FLAME_MODEL_PATH, else the embedded open head."""


@dataclass(frozen=True)
class Frame:
    """One image of the capture, with every path absolute and every optional key resolved."""

    image: Path
    mask: Path | None
    flame: Path | None
    timestep_index: int
    camera_index: int
    c2w: np.ndarray
    """(4, 4) float64, camera-to-world, OpenGL axes, metres."""
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


class NersembleDataParser(DataParser):
    """Reads one capture. The motion covers the timesteps of all three splits, whichever split is asked for."""

    config: NersembleDataParserConfig
    includes_time: bool = True

    def __init__(self, config: NersembleDataParserConfig):
        super().__init__(config)
        self.folder: Path | None = None
        self._frames: dict[str, list[Frame]] | None = None
        self._heads: set[str] = set()
        self._motion: FlameMotion | None = None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        if split not in SPLITS:
            raise ValueError(f"nersemble-data has the splits {', '.join(SPLITS)}; asked for {split!r}.")
        by_split = self._read_all()
        timesteps = sorted({f.timestep_index for frames in by_split.values() for f in frames})
        rank = {index: i for i, index in enumerate(timesteps)}
        frames = by_split[split] if self.config.timestep is None else self._one_timestep(by_split, split)
        if split == "train" and not frames:
            raise ValueError(f"{self._json_path('train')} lists no frames: there is nothing to train on.")
        _require_files([f.image for f in frames], f"images of split {split!r}", self._json_path(split))
        ranks = [rank[f.timestep_index] for f in frames]

        motion = self._read_motion(by_split, timesteps)
        masks = [f.mask for f in frames if f.mask is not None]
        complete = bool(frames) and len(masks) == len(frames)
        if complete:
            _require_files(masks, f"foreground masks of split {split!r}", self._json_path(split))
        elif self.config.use_masks and frames:
            raise ValueError(
                f"--use-masks True: not every frame in {self._json_path(split)} has a 'fg_mask_path'."
            )
        metadata = {
            "flame_motion": motion,
            "flame_model_path": self.config.flame_model,
            "head": next(iter(self._heads)) if len(self._heads) == 1 else None,
            "timestep_indices": timesteps,
            "timesteps": torch.tensor(ranks, dtype=torch.long),
            "camera_indices": torch.tensor([f.camera_index for f in frames], dtype=torch.long),
            "fg_mask_filenames": masks if complete else None,
            "split": split,
            "capture": self.folder,
        }
        return DataparserOutputs(
            image_filenames=[f.image for f in frames],
            cameras=_cameras(frames, ranks, len(timesteps)),
            alpha_color=torch.ones(3),
            scene_box=_scene_box(motion, by_split["train"]),
            mask_filenames=masks if self.config.use_masks and complete else None,
            metadata=metadata,
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def _json_path(self, split: str) -> Path:
        assert self.folder is not None
        return self.folder / f"transforms_{split}.json"

    def _read_all(self) -> dict[str, list[Frame]]:
        if self._frames is None:
            self.folder = find_capture(self.config.data)
            self._frames = {}
            for split in SPLITS:
                content = _read_json(self._json_path(split))
                if isinstance(content.get("head"), str):
                    self._heads.add(content["head"])
                self._frames[split] = self._parse_frames(content, self._json_path(split))
        return self._frames

    def _parse_frames(self, content: dict[str, Any], source: Path) -> list[Frame]:
        entries = content.get("frames")
        if not isinstance(entries, list):
            raise ValueError(f"{source}: expected a list under 'frames', found {type(entries).__name__}.")
        frames = []
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict):
                raise ValueError(
                    f"{source}: frame {number} is a {type(entry).__name__}, expected an object with file_path etc."
                )
            try:
                frames.append(self._parse_frame(entry, content, source))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"has no key {error}" if isinstance(error, KeyError) else str(error)
                raise ValueError(f"{source}: frame {number} {reason}") from error
        return frames

    def _parse_frame(self, entry: dict[str, Any], shared: dict[str, Any], source: Path) -> Frame:
        def path(key: str) -> Path | None:
            return _confined(source.parent, entry[key]) if entry.get(key) else None

        image = path("file_path")
        if image is None:
            raise KeyError("file_path")
        c2w = np.asarray(entry["transform_matrix"], dtype=np.float64)
        if c2w.shape != (4, 4) or not np.isfinite(c2w).all():
            raise ValueError(f"has a transform_matrix of shape {c2w.shape}; expected 4 x 4 finite numbers.")
        width, height = _image_size(entry, shared, image)
        fx, fy = _focal_lengths({**shared, **entry}, width, height)
        return Frame(
            image=image,
            mask=path("fg_mask_path"),
            flame=path("flame_param_path"),
            timestep_index=int(entry["timestep_index"]),
            camera_index=int(entry.get("camera_index", 0)),
            c2w=c2w,
            fx=fx,
            fy=fy,
            cx=self._principal_x({**shared, **entry}, width),
            cy=self._principal_y({**shared, **entry}, height),
            width=width,
            height=height,
        )

    def _principal_x(self, keys: dict[str, Any], width: int) -> float:
        return width / 2 if self.config.cy == "centre" else float(keys["cx"])

    def _principal_y(self, keys: dict[str, Any], height: int) -> float:
        if self.config.cy == "centre":
            return height / 2
        return float(keys["cy"]) if self.config.cy == "top" else height - float(keys["cy"])

    # -- choosing and posing ------------------------------------------------------------------------------------------

    def _one_timestep(self, by_split: dict[str, list[Frame]], split: str) -> list[Frame]:
        """The frames of `--timestep`: the validation camera's (else the middle one's) for val and test, the others for train."""
        wanted = self.config.timestep
        pool = {f.image: f for frames in by_split.values() for f in frames if f.timestep_index == wanted}
        if not pool:
            known = sorted({f.timestep_index for frames in by_split.values() for f in frames})
            raise ValueError(
                f"--timestep {wanted}: {self.folder} has no such timestep_index; it has {_summary(known)}."
            )
        cameras = sorted({f.camera_index for f in pool.values()})
        val_cameras = {f.camera_index for f in by_split["val"]} & set(cameras)
        held_out = (
            val_cameras if val_cameras and len(val_cameras) < len(cameras) else {cameras[len(cameras) // 2]}
        )
        if len(cameras) == 1:
            return list(pool.values()) if split == "train" else []
        return [f for f in pool.values() if (f.camera_index in held_out) == (split != "train")]

    def _read_motion(self, by_split: dict[str, list[Frame]], timesteps: Sequence[int]) -> FlameMotion | None:
        """The FLAME parameters of every timestep, in order; None when no frame names any (a capture without tracking)."""
        if self._motion is not None:
            return self._motion
        files: dict[int, Path] = {}
        for split, frames in by_split.items():
            for f in frames:
                if f.flame is None:
                    continue
                if files.setdefault(f.timestep_index, f.flame) != f.flame:
                    raise ValueError(
                        f"{self._json_path(split)}: timestep_index {f.timestep_index} stands for both "
                        f"{files[f.timestep_index]} and {f.flame}. "
                        "Each timestep of a combined set needs an index of its own."
                    )
        if not files:
            return None
        missing = [index for index in timesteps if index not in files]
        if missing:
            raise ValueError(
                f"{self.folder}: no 'flame_param_path' for timestep_index {_summary(missing)}, but for others."
            )
        paths = [files[index] for index in timesteps]
        _require_files(paths, "FLAME parameters", self._json_path("train"))
        from edit3dgs_ns.flame.motion import FlameMotion

        self._motion = FlameMotion.from_frames(paths)
        return self._motion


def find_capture(data: Path) -> Path:
    """The folder with the three transforms files: `data` itself, or the single combined set in it.

    Raises:
        FileNotFoundError: `data` does not exist, or nothing in it is a capture.
        ValueError: several folders in `data` qualify; the message lists them.
    """
    data = Path(os.path.abspath(data.expanduser()))
    if not data.is_dir():
        raise FileNotFoundError(
            f"--data {data}: no such folder. Expected a capture (a folder with transforms_train.json)."
        )
    if (data / "transforms_train.json").is_file():
        return data
    inside = sorted(p.parent for p in data.glob("*/transforms_train.json"))
    unions = [p for p in inside if p.name.upper().startswith("UNION")]
    choices = unions or inside
    if len(choices) == 1:
        return choices[0]
    if not choices:
        raise FileNotFoundError(
            f"--data {data}: neither it nor a folder in it holds transforms_train.json. Expected a capture as VHAP exports it, "
            "or one made by `edit3dgs capture`."
        )
    raise ValueError(
        f"--data {data}: several captures in it; name one of {', '.join(str(p) for p in choices)}."
    )


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. VHAP and `edit3dgs capture` write one for train, val and test (a split may list no frames)."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON: {error}. It may be truncated: export the capture again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: expected an object with a 'frames' list, found a {type(content).__name__}."
        )
    return content


def _confined(folder: Path, relative: Any) -> Path:
    """`folder / relative`, which may go up to the capture (the parent of `folder`) and no further."""
    if not isinstance(relative, str):
        raise TypeError(f"has a path that is no text: {relative!r}.")
    path = Path(os.path.normpath(folder / relative))
    if not path.is_relative_to(folder.parent):
        raise ValueError(
            f"has the path {relative!r}, which leaves the capture {folder.parent}; only files inside it are read."
        )
    return path


def _image_size(entry: dict[str, Any], shared: dict[str, Any], image: Path) -> tuple[int, int]:
    keys = {**shared, **entry}
    if "w" in keys and "h" in keys:
        return int(keys["w"]), int(keys["h"])
    from PIL import Image

    if not image.is_file():
        raise ValueError(f"has neither 'w' and 'h' nor its image {image}.")
    with Image.open(image) as picture:
        return picture.size


def _focal_lengths(keys: dict[str, Any], width: int, height: int) -> tuple[float, float]:
    """Focal lengths in pixels, from fl_x and fl_y or from the fields of view (radians)."""

    def focal(length_key: str, angle_key: str, size: int) -> float | None:
        if length_key in keys:
            return float(keys[length_key])
        return size / (2 * math.tan(float(keys[angle_key]) / 2)) if angle_key in keys else None

    fx, fy = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    if fx is None and fy is None:
        raise KeyError("fl_x (or camera_angle_x)")
    fx, fy = fx if fx is not None else fy, fy if fy is not None else fx
    assert fx is not None and fy is not None
    if not (math.isfinite(fx) and math.isfinite(fy) and fx > 0 and fy > 0):
        raise ValueError(f"has the focal lengths {fx}, {fy}; expected positive pixels.")
    return fx, fy


def _cameras(frames: Sequence[Frame], ranks: Sequence[int], num_timesteps: int) -> Cameras:
    def column(values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).reshape(-1, 1)

    c2w = np.stack([f.c2w[:3] for f in frames]) if frames else np.zeros((0, 3, 4))
    return Cameras(
        camera_to_worlds=torch.from_numpy(c2w).float(),
        fx=column([f.fx for f in frames]),
        fy=column([f.fy for f in frames]),
        cx=column([f.cx for f in frames]),
        cy=column([f.cy for f in frames]),
        width=column([f.width for f in frames], torch.int64),
        height=column([f.height for f in frames], torch.int64),
        camera_type=CameraType.PERSPECTIVE,
        times=column([rank / max(num_timesteps - 1, 1) for rank in ranks]),
    )


def _scene_box(motion: FlameMotion | None, frames: Sequence[Frame]) -> SceneBox:
    """A box around the head wherever it goes; without tracking, around the point nearest to all optical axes."""
    if motion is not None:
        low, high = motion.translation.amin(dim=0).cpu(), motion.translation.amax(dim=0).cpu()
    else:
        low = high = torch.from_numpy(_nearest_to_axes(frames)).float()
    return SceneBox(aabb=torch.stack([low - HEAD_HALF_EXTENT, high + HEAD_HALF_EXTENT]))


def _nearest_to_axes(frames: Sequence[Frame]) -> np.ndarray:
    """The point with the least sum of squared distances to the optical axes (a metre ahead for a single camera)."""
    c2w = np.stack([f.c2w for f in frames])
    origins, directions = c2w[:, :3, 3], -c2w[:, :3, 2]
    directions = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
    system = across.sum(axis=0)
    if np.linalg.cond(system) > 1e6:
        return (origins + directions).mean(axis=0)
    return np.linalg.solve(system, (across @ origins[:, :, None]).sum(axis=0))[:, 0]


def _require_files(paths: Sequence[Path | None], what: str, source: Path) -> None:
    missing = [p for p in paths if p is not None and not p.is_file()]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} {what} named in {source} are missing, the first is {missing[0]}."
        )


def _summary(numbers: Sequence[int], most: int = 12) -> str:
    text = ", ".join(str(n) for n in numbers[:most])
    return text if len(numbers) <= most else f"{text}, ... up to {numbers[-1]} ({len(numbers)} in all)"


nersemble_data = DataParserSpecification(
    config=NersembleDataParserConfig(),
    description="Multi-view head captures with FLAME tracking (NeRSemble through VHAP, or `edit3dgs capture`).",
)
