"""A finished `ns-train` run, ready to render: for demos, evaluations and notebooks.

Images and masks leave this module as numpy arrays, so that what is done with them needs no Nerfstudio.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from nerfstudio.cameras.cameras import Cameras

from edit3dgs_ns.capture.images import read_mask
from edit3dgs_ns.errors import UserError
from edit3dgs_ns.runs.backgrounds import drawn_otherwise
from edit3dgs_ns.runs.open_pipeline import open_pipeline
from edit3dgs_ns.training.dataset import AvatarDataset

if TYPE_CHECKING:
    from edit3dgs_ns.flame.assets import FlameAssets
    from edit3dgs_ns.flame.motion import FlameMotion
    from edit3dgs_ns.splats.world_splats import Backdrop


@dataclass(frozen=True)
class Picture:
    """A render."""

    rgb: Float[np.ndarray, "height width 3"]
    """On white, in [0, 1]."""
    alpha: Float[np.ndarray, "height width"]
    """How much of a pixel the avatar covers, in [0, 1]."""


@dataclass(frozen=True)
class Split:
    """The held-out or training images of a capture, read one by one."""

    cameras: Cameras
    timesteps: Int[np.ndarray, " images"]
    """Place of each image on the motion, 0 ... T-1."""
    dataset: AvatarDataset
    masks: list[Path] | None

    @property
    def times(self) -> Float[np.ndarray, " images"]:
        """Place of each image on the motion, in [0, 1]."""
        assert self.cameras.times is not None
        return self.cameras.times[:, 0].numpy()

    def __len__(self) -> int:
        return len(self.dataset)

    def image(self, index: int) -> Float[np.ndarray, "height width 3"]:
        """The captured image on white, in [0, 1]."""
        return self.dataset.get_numpy_image(index).astype(np.float32) / 255

    def mask(self, index: int) -> Float[np.ndarray, "height width"]:
        """How much of a pixel shows the head, in [0, 1].

        Raises:
            ValueError: the capture has no foreground masks.
        """
        if self.masks is None:
            raise UserError(f"{self.dataset.image_filenames[index]}: the capture names no foreground masks.")
        mask = read_mask(self.masks[index], self.dataset.sizes[index], self.dataset.scale_factor)
        return mask.astype(np.float32) / 255


class TrainedRun:
    """The avatar of a run and the capture it was trained on."""

    def __init__(self, config_path: Path):
        """Load the latest checkpoint of a run.

        Args:
            config_path: its config.yml.

        Raises:
            FileNotFoundError: there is no such file.
            UserError: it names classes that are not there, is no run of an avatar, or its checkpoint holds none.
        """
        self.pipeline: Any
        self.pipeline, self.step = open_pipeline(Path(config_path))
        self._splits: dict[str, Split] = {}

    @classmethod
    def of_capture(cls, config_path: Path) -> TrainedRun:
        """A run that can be compared with its capture.

        Raises:
            FileNotFoundError, ValueError: there is no such file, or the run shows another motion, moment or scene.
        """
        run = cls(config_path)
        if run.pipeline.plays is not None:
            raise UserError(
                f"{config_path} shows {run.pipeline.plays}: no captured image does, so there is nothing to compare with. Give the "
                "run of the avatar itself; reenactment.json in this run's folder names it."
            )
        return run

    @property
    def motion(self) -> Any:
        """The FlameMotion of the capture, all timesteps."""
        return self.pipeline.datamanager.train_dataset.metadata["flame_motion"]

    @property
    def head(self) -> FlameAssets:
        """The head model that the avatar is bound to."""
        from edit3dgs_ns.training.model_setup import head_assets

        return head_assets(self.pipeline.datamanager.train_dataset.metadata)

    @property
    def expression_names(self) -> tuple[str, ...] | None:
        """Names of the head's expression directions; FLAME's have none."""
        return self.head.expression_names

    def play(self, motion: FlameMotion) -> None:
        """Move by another motion from now on: times are places on it. The avatar stays who it is (see `flame.retarget`)."""
        self.pipeline.model.head.set_motion(motion)

    @property
    def backdrop(self) -> Backdrop | None:
        """The scene that is drawn with the avatar."""
        return self.pipeline.model.backdrop

    def composite_over(self, backdrop: Backdrop | None) -> tuple[str, ...]:
        """Draw this scene with the avatar from now on; None leaves what the run has.

        Returns:
            What to tell the user.
        """
        if backdrop is None:
            return ()
        model = self.pipeline.model
        model.backdrop = backdrop.to(model.device)
        note = drawn_otherwise(backdrop, model.config.rasterize_mode)
        return () if note is None else (note,)

    def split(self, name: str) -> Split:
        """Images of `train`, `val` (held-out camera) or `test` (unseen sequence)."""
        if name not in self._splits:
            outputs = self.pipeline.datamanager.dataparser.get_dataparser_outputs(split=name)
            self._splits[name] = Split(
                cameras=outputs.cameras,
                timesteps=outputs.metadata["timesteps"].numpy(),
                dataset=AvatarDataset(outputs),
                masks=outputs.metadata["fg_mask_filenames"],
            )
        return self._splits[name]

    @torch.no_grad()
    def render(self, camera: Cameras) -> Picture:
        """Render one camera at its time (`camera.times`, a normalised time in [0, 1])."""
        outputs = self.pipeline.model.get_outputs_for_camera(camera.to(self.pipeline.device))
        rgb = outputs["rgb"].clamp(0, 1).cpu().numpy()
        return Picture(rgb=rgb, alpha=outputs["accumulation"][..., 0].clamp(0, 1).cpu().numpy())

    def colours(self, cameras: Cameras) -> Float[np.ndarray, "views height width 3"]:
        """What cameras of one size and one time see, on white, in [0, 1]; colours alone, for videos. Without a time: the start."""
        return colours(self.pipeline.model, cameras)


@torch.no_grad()
def colours(model: Any, cameras: Cameras) -> Float[np.ndarray, "views height width 3"]:
    """What cameras of one size and one time see of a model's avatar and its background, on white, in [0, 1]."""
    time = None if cameras.times is None else float(cameras.times.flatten()[0])
    shown = model.draw_shown(cameras.to(model.device), *model.shown_at(time), scene=model.scene())
    return shown.cpu().numpy()


def moved_camera(
    camera: Cameras,
    c2w: Float[np.ndarray, "4 4"] | None = None,
    time: float | None = None,
    scale: float = 1.0,
) -> Cameras:
    """A copy of one camera, shape (1,), with another pose or time, or `scale` times as many pixels a side."""
    copy = deepcopy(camera)
    if c2w is not None:
        copy.camera_to_worlds = torch.from_numpy(c2w[:3]).to(copy.camera_to_worlds)[None]
    if time is not None:
        copy.times = torch.full_like(copy.fx, time)
    if scale != 1.0:
        copy.rescale_output_resolution(scale)
    return copy


def pose_matrices(cameras: Cameras) -> Float[np.ndarray, "views 4 4"]:
    """c2w of cameras as homogeneous matrices in float64."""
    poses = np.tile(np.eye(4), (len(cameras), 1, 1))
    poses[:, :3] = cameras.camera_to_worlds.cpu().numpy()
    return poses
