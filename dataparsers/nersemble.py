"""`nersemble-data`: multi-view head captures with FLAME tracking, as VHAP exports and GaussianAvatars reads them.

The layout on disk is that of `edit3dgs_ns.capture.transforms`, which reads the JSON files.

Conventions: metres; `transform_matrix` is camera-to-world with OpenGL axes; cameras are neither re-centred nor scaled, so
that they stay in the frame of the FLAME head. `times` of a camera is the normalised time of its timestep
on the motion of *all* splits together:
rank of its timestep / (number of timesteps - 1), in [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Type  # noqa: UP035  (tyro reads these at run time)

import numpy as np
import torch
from nerfstudio.cameras.cameras import Cameras, CameraType
from nerfstudio.data.dataparsers.base_dataparser import DataParser, DataParserConfig, DataparserOutputs
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.plugins.registry_dataparser import DataParserSpecification

from edit3dgs_ns.capture.transforms import (
    SPLITS,
    CyConvention,
    FrameEntry,
    each_frame,
    find_capture,
    read_transforms,
    shares_one_motion_file,
    transforms_path,
)
from edit3dgs_ns.errors import MissingFileError, UserError

if TYPE_CHECKING:
    from edit3dgs_ns.flame.motion import FlameMotion

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
    cy: CyConvention = "auto"
    """Where the principal point is: `auto` takes it where the files say from which edge cy counts (those of `edit3dgs track`), else
    the centre; `centre` ignores cx and cy of the files (as GaussianAvatars does); `top` and `bottom` take
    them, cy measured from the top or the bottom edge of the image (VHAP exports from 2024-11-18 on: `bottom`)."""
    timestep: Optional[int] = None  # noqa: UP045
    """Use only the images of this one timestep_index; its front camera is held out for evaluation. Static methods
    (nerfacto, splatfacto, ...) need it: without it they see every expression at once and blur. Leave it out for
    rigged-splatfacto and edit3dgs."""
    use_masks: bool = False
    """Hand the foreground masks to the method as Nerfstudio masks (the method then ignores the background). rigged-splatfacto and
    edit3dgs need no masks: they put the head on white themselves."""
    flame_model: Optional[Path] = None  # noqa: UP045
    """FLAME model that the capture was tracked with: its pickle (flame2023_Open.pkl, ...), the ZIP it is downloaded in, or an npz.
    Default: the environment's FLAME_MODEL_PATH, else the embedded open head."""


class NersembleDataParser(DataParser):
    """Reads one capture. The motion covers the timesteps of all three splits, whichever split is asked for."""

    config: NersembleDataParserConfig
    includes_time: bool = True

    def __init__(self, config: NersembleDataParserConfig):
        super().__init__(config)
        self.folder: Path | None = None
        self._frames: dict[str, list[FrameEntry]] | None = None
        self._heads: set[str] = set()
        self._one_motion_file = False
        self._motion: FlameMotion | None = None

    def _generate_dataparser_outputs(self, split: str = "train", **kwargs: Any) -> DataparserOutputs:
        if split not in SPLITS:
            raise UserError(f"nersemble-data has the splits {', '.join(SPLITS)}; asked for {split!r}.")
        by_split = self._read_all()
        timesteps = self._all_timesteps(by_split)
        rank = {index: i for i, index in enumerate(timesteps)}
        frames = by_split[split] if self.config.timestep is None else self._one_timestep(by_split, split)
        if split == "train" and not frames:
            raise UserError(f"{self._json_path('train')} lists no frames: there is nothing to train on.")
        _require_files([f.image for f in frames], f"images of split {split!r}", self._json_path(split))
        ranks = [rank[f.timestep_index] for f in frames]

        motion = self._read_motion(by_split, timesteps)
        masks = [f.mask for f in frames if f.mask is not None]
        complete = bool(frames) and len(masks) == len(frames)
        if complete:
            _require_files(masks, f"foreground masks of split {split!r}", self._json_path(split))
        elif self.config.use_masks and frames:
            raise UserError(
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
            cameras=_cameras(frames, ranks, len(timesteps), self.config.cy),
            alpha_color=torch.ones(3),
            scene_box=_scene_box(motion, by_split["train"]),
            mask_filenames=masks if self.config.use_masks and complete else None,
            metadata=metadata,
        )

    # -- reading ------------------------------------------------------------------------------------------------------

    def _json_path(self, split: str) -> Path:
        assert self.folder is not None
        return transforms_path(self.folder, split)

    def _read_all(self) -> dict[str, list[FrameEntry]]:
        if self._frames is None:
            self.folder = find_capture(self.config.data)
            self._frames = {}
            for split in SPLITS:
                content = read_transforms(self._json_path(split))
                if isinstance(content.get("head"), str):
                    self._heads.add(content["head"])
                self._frames[split] = self._frames_of(content, self._json_path(split))
            self._one_motion_file = shares_one_motion_file(
                f for frames in self._frames.values() for f in frames
            )
        return self._frames

    def _frames_of(self, content: dict[str, Any], source: Path) -> list[FrameEntry]:
        frames = []
        for number, frame in enumerate(each_frame(content, source)):
            if isinstance(frame, UserError):
                raise frame
            for key in ("cx", "cy") if self.config.cy in ("top", "bottom") else ():
                if getattr(frame, key) is None:
                    raise UserError(
                        f"{source}: frame {number} has no key {key!r}, which --cy {self.config.cy} needs."
                    )
            frames.append(frame)
        return frames

    # -- choosing and posing ------------------------------------------------------------------------------------------

    def _one_timestep(self, by_split: dict[str, list[FrameEntry]], split: str) -> list[FrameEntry]:
        """The frames of `--timestep`: the validation camera's (else the middle one's) for val and test, the others for train."""
        wanted = self.config.timestep
        pool = {f.image: f for frames in by_split.values() for f in frames if f.timestep_index == wanted}
        if not pool:
            known = sorted({f.timestep_index for frames in by_split.values() for f in frames})
            raise UserError(
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

    def _all_timesteps(self, by_split: dict[str, list[FrameEntry]]) -> list[int]:
        """The timestep_index of every timestep of the motion, in order.

        Where all frames share one file of parameters, its rows are the timesteps, whether an image shows them or not.
        """
        shown = sorted({f.timestep_index for frames in by_split.values() for f in frames})
        if not self._one_motion_file:
            return shown
        motion = self._read_motion(by_split, shown[:1])
        assert motion is not None
        beyond = [index for index in shown if not 0 <= index < len(motion)]
        if beyond:
            raise UserError(
                f"{self._json_path('train')}: timestep_index {_summary(beyond)}, but the file under 'flame_param_path' has "
                f"the timesteps 0 to {len(motion) - 1}."
            )
        return list(range(len(motion)))

    def _read_motion(
        self, by_split: dict[str, list[FrameEntry]], timesteps: Sequence[int]
    ) -> FlameMotion | None:
        """The FLAME parameters of every timestep, in order; None when no frame names any (a capture without tracking)."""
        if self._motion is not None:
            return self._motion
        files: dict[int, Path] = {}
        for split, frames in by_split.items():
            for f in frames:
                if f.flame is None:
                    continue
                if files.setdefault(f.timestep_index, f.flame) != f.flame:
                    raise UserError(
                        f"{self._json_path(split)}: timestep_index {f.timestep_index} stands for both "
                        f"{files[f.timestep_index]} and {f.flame}. "
                        "Each timestep of a combined set needs an index of its own."
                    )
        if not files:
            return None
        missing = [index for index in timesteps if index not in files]
        if missing:
            raise UserError(
                f"{self.folder}: no 'flame_param_path' for timestep_index {_summary(missing)}, but for others."
            )
        paths = [files[index] for index in timesteps]
        _require_files(paths, "FLAME parameters", self._json_path("train"))
        from edit3dgs_ns.flame.motion import FlameMotion

        self._motion = FlameMotion.load(paths[0]) if self._one_motion_file else FlameMotion.from_frames(paths)
        return self._motion


def _cameras(
    frames: Sequence[FrameEntry], ranks: Sequence[int], num_timesteps: int, convention: CyConvention
) -> Cameras:
    def column(values: list[float], dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype).reshape(-1, 1)

    c2w = np.stack([f.c2w[:3] for f in frames]) if frames else np.zeros((0, 3, 4))
    return Cameras(
        camera_to_worlds=torch.from_numpy(c2w).float(),
        fx=column([f.fx for f in frames]),
        fy=column([f.fy for f in frames]),
        cx=column([f.principal_point(convention)[0] for f in frames]),
        cy=column([f.principal_point(convention)[1] for f in frames]),
        width=column([f.width for f in frames], torch.int64),
        height=column([f.height for f in frames], torch.int64),
        camera_type=CameraType.PERSPECTIVE,
        times=column([rank / max(num_timesteps - 1, 1) for rank in ranks]),
    )


def _scene_box(motion: FlameMotion | None, frames: Sequence[FrameEntry]) -> SceneBox:
    """A box around the head wherever it goes; without tracking, around the point nearest to all optical axes."""
    if motion is not None:
        low, high = motion.translation.amin(dim=0).cpu(), motion.translation.amax(dim=0).cpu()
    else:
        low = high = torch.from_numpy(_nearest_to_axes(frames)).float()
    return SceneBox(aabb=torch.stack([low - HEAD_HALF_EXTENT, high + HEAD_HALF_EXTENT]))


def _nearest_to_axes(frames: Sequence[FrameEntry]) -> np.ndarray:
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
        raise MissingFileError(
            f"{len(missing)} of {len(paths)} {what} named in {source} are missing, the first is {missing[0]}. "
            f"This lists all: edit3dgs doctor --data {source.parent}"
        )


def _summary(numbers: Sequence[int], most: int = 12) -> str:
    text = ", ".join(str(n) for n in numbers[:most])
    return text if len(numbers) <= most else f"{text}, ... up to {numbers[-1]} ({len(numbers)} in all)"


nersemble_data = DataParserSpecification(
    config=NersembleDataParserConfig(),
    description="Multi-view head captures with FLAME tracking (NeRSemble through VHAP, or `edit3dgs capture`).",
)
