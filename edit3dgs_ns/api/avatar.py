"""Avatars and motions of the Python API."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from edit3dgs_ns.api.batch import camera_matrices, canonical_views, fitted_to
from edit3dgs_ns.api.editors import DEMO, best_device
from edit3dgs_ns.api.parameters import in_parameters
from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.capture.driver import Part
from edit3dgs_ns.capture.from_avatar import ViewSettings, cameras_around
from edit3dgs_ns.editing.editor import Editor, EditRequest, check_finite
from edit3dgs_ns.errors import ExistingFileError, MissingFileError, UserError
from edit3dgs_ns.files import written_beside
from edit3dgs_ns.flame.assets import OPEN_HEAD_PATH, FlameAssets
from edit3dgs_ns.flame.loading import head_with, load_assets
from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.flame.motion_files import RecordedMotion
from edit3dgs_ns.flame.retarget import HeadPose, Neutral, RetargetOptions
from edit3dgs_ns.splats.avatar_files import check_avatar, read_avatar, write_avatar
from edit3dgs_ns.splats.avatar_folder import NPZ_NAME, PLY_NAME
from edit3dgs_ns.splats.checkpoints import (
    BACKDROP,
    find_checkpoint,
    model_state,
    read_checkpoint,
    write_checkpoint,
)
from edit3dgs_ns.splats.ply import write_splat_ply
from edit3dgs_ns.splats.rasterize import RasterizeMode, rasterize
from edit3dgs_ns.splats.rig import TrackedHead
from edit3dgs_ns.splats.rigged_gaussians import RiggedGaussians, lost_in_ply
from edit3dgs_ns.splats.run_config import RunConfig, read_run_config
from edit3dgs_ns.splats.world_splats import Backdrop, WorldSplats
from edit3dgs_ns.tracking.driving import drive, open_driver

Image = Float[np.ndarray, "height width 3"]
_DEGREES_OF_ROTATION = {"rotation": 3, "neck": 3, "jaw": 3, "eyes": 6}
_RASTERIZE_MODE = "rasterize_mode"
"""Key in a saved avatar's checkpoint."""


@dataclass(frozen=True)
class Motion:
    """A recorded motion: expressions and poses of a head over time."""

    recorded: RecordedMotion
    """The head's parameters, and what the file says about them."""

    @classmethod
    @in_parameters
    def load(cls, path: str | Path, avatar: Avatar | None = None, *, part: Part = "all") -> Motion:
        """Reads a motion of any known kind.

        Args:
            path: a video, which is tracked once; a capture's folder; GaussianAvatars' or VHAP's npz; the NeRSemble benchmark's
                tracking; or a CSV or JSON file of ARKit's coefficients.
            avatar: that it is meant for: ARKit's coefficients are mapped to its head. None: the embedded open head.
            part: of a capture: `train`, `val`, `test` or `all` timesteps.

        Raises:
            FileNotFoundError: there is nothing of that kind.
            ValueError: it is damaged, has no frames, or cannot drive this head.
        """
        head = load_assets(OPEN_HEAD_PATH) if avatar is None else avatar.head
        return cls(open_driver(Path(path), head, part).recorded)

    def __len__(self) -> int:
        """Number of timesteps."""
        return len(self.recorded.motion)

    @property
    def fps(self) -> float | None:
        """Frames per second; None where the file does not say."""
        return self.recorded.fps


@dataclass(frozen=True)
class EditedBatch:
    """What `Avatar.edit` returns."""

    avatar: Avatar
    """Fitted to `images`; the avatar itself with `fit_steps=0`."""
    images: Float[np.ndarray, "views height width 3"]
    """The views as the editor returned them."""
    originals: Float[np.ndarray, "views height width 3"]
    """The same views before the edit."""
    cameras: tuple[Camera, ...]
    """Of each view."""
    timesteps: tuple[int, ...]
    """Of each view."""


@dataclass(frozen=True, eq=False)
class Avatar:
    """A head avatar of Gaussians that are bound to a FLAME head. Make one with `load`; no method changes it."""

    gaussians: RiggedGaussians
    head: FlameAssets
    """The head model that it is bound to."""
    rasterize_mode: RasterizeMode = "classic"
    """As it was trained."""
    backdrop: Backdrop | None = None
    """The scene that is drawn around it."""

    # -- files ---------------------------------------------------------------------------------------------------------

    @classmethod
    @in_parameters
    def load(
        cls, source: str | Path, *, flame_model: str | Path | None = None, device: str | None = None
    ) -> Avatar:
        """Reads a trained avatar. Nothing in its files is executed.

        Args:
            source: a run of `ns-train` (its folder, config.yml or a checkpoint); a folder with GaussianAvatars' point_cloud.ply and
                flame_param.npz; what `save` wrote; or `demo`, a small avatar of the embedded head that is made on the spot (about
                20 seconds).
            flame_model: FLAME's file; None: as the run says, else the embedded open head or what FLAME_MODEL_PATH names.
            device: `cpu` or `cuda`; None: CUDA where there is one.

        Raises:
            FileNotFoundError: there is no avatar, or its head model is missing.
            ValueError: a file is damaged, or the avatar is bound to another head model.
        """
        device = device or best_device()
        if source == DEMO:
            from edit3dgs_ns.synthetic.quick_avatar import quick_avatar

            return cls(quick_avatar().to(device), load_assets(OPEN_HEAD_PATH))
        path = Path(source).expanduser()
        if path.is_dir() and not any(path.glob("nerfstudio_models/*.ckpt")) and not any(path.glob("*.ckpt")):
            return cls._from_files(path, flame_model, device)
        if path.suffix == ".ply":
            return cls._from_files(path, flame_model, device)
        return cls._from_run(path, flame_model, device)

    @classmethod
    def _from_files(cls, path: Path, flame_model: str | Path | None, device: str) -> Avatar:
        try:
            files = read_avatar(path)
        except MissingFileError as error:
            raise MissingFileError(
                f"{path}: no avatar here. Expected a run of `ns-train` (config.yml and nerfstudio_models/) or a folder with "
                f"{PLY_NAME} and {NPZ_NAME}. ({error})"
            ) from error
        head = head_with(files.num_vertices, flame_model)
        check_avatar(files, head)
        return cls(RiggedGaussians.from_files(files.gaussians, files.motion, head).to(device), head)

    @classmethod
    def _from_run(cls, path: Path, flame_model: str | Path | None, device: str) -> Avatar:
        checkpoint = find_checkpoint(
            path, "Avatar.load", "a run of `ns-train rigged-splatfacto` or `ns-train edit3dgs`"
        )
        content = read_checkpoint(checkpoint, "Avatar.load")
        state = model_state(content)
        if "head.static_offset" not in state:
            raise UserError(f"{checkpoint} holds no rigged avatar (no Gaussians that are bound to a head).")
        folder = (
            checkpoint.parent.parent if checkpoint.parent.name == "nerfstudio_models" else checkpoint.parent
        )
        config = read_run_config(folder / "config.yml") if (folder / "config.yml").is_file() else RunConfig()
        head = head_with(len(state["head.static_offset"]), flame_model or config.flame_model)
        stored = content["pipeline"].get(BACKDROP)
        backdrop = None if stored is None else Backdrop.from_state(stored).to(device)
        mode = content.get(_RASTERIZE_MODE, config.rasterize_mode)
        return cls(RiggedGaussians.from_state(state, head).to(device), head, mode, backdrop)

    @in_parameters
    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Writes the whole avatar into one checkpoint: `load` reads it, and so does `ns-train edit3dgs --pipeline.avatar`.

        Args:
            path: ends with .ckpt; folders are made.
            overwrite: replace a file that is there.

        Returns:
            The file.

        Raises:
            ValueError: another ending.
            FileExistsError: the file is there, and `overwrite` is not given.
        """
        path = Path(path).expanduser()
        if path.suffix != ".ckpt":
            raise UserError(
                f"{path}: expected a name that ends with .ckpt. `export` writes files for other programs."
            )
        _refuse_existing(path, overwrite)
        pipeline: dict[str, Any] = {f"_model.{name}": value for name, value in self.gaussians.state().items()}
        # An empty parameter by which every model of Nerfstudio knows its device; loading asks for it.
        pipeline["_model.device_indicator_param"] = torch.empty(0)
        if self.backdrop is not None:
            pipeline[BACKDROP] = self.backdrop.state()
        content = {"step": 0, "pipeline": pipeline, _RASTERIZE_MODE: self.rasterize_mode}
        with written_beside(path) as partial:
            write_checkpoint(content | {"optimizers": {}, "schedulers": {}, "scalers": {}}, partial)
        return path

    @in_parameters
    def export(
        self, path: str | Path, timestep: int | FlamePose | None = None, overwrite: bool = False
    ) -> list[Path]:
        """Writes files for other programs.

        Args:
            path: a folder: GaussianAvatars' point_cloud.ply and flame_param.npz, with the motion; or a name that ends with .ply: a
                standard splat of one pose, as generic viewers read it.
            timestep: of a splat; None: the first.
            overwrite: replace files that are there.

        Returns:
            The files. Warns where GaussianAvatars' format has no place for a part of the avatar; `save` keeps everything.

        Raises:
            ValueError: a timestep outside the motion, or one for a folder.
            FileExistsError: a file is there, and `overwrite` is not given.
        """
        path = Path(path).expanduser()
        if path.suffix == ".ply":
            _refuse_existing(path, overwrite)
            splats = self._splats(self._pose_of(0 if timestep is None else timestep), scene=False)
            opacities = torch.logit(splats.opacities, eps=1e-6)[:, None]
            write_splat_ply(path, splats.gaussians, opacities, splats.colors[:, 0], splats.colors[:, 1:])
            return [path]
        if timestep is not None:
            raise UserError(
                f"{path}: a folder gets the whole motion; a timestep goes with a name that ends with .ply."
            )
        state = self.gaussians.state()
        write_avatar(path, self.gaussians.bound(), self._tracked.shown_motion(), overwrite=overwrite)
        if lost := lost_in_ply(state):
            warnings.warn(
                f"{path} lacks {' and '.join(lost)}: GaussianAvatars' format has no place for it.",
                stacklevel=2,
            )
        return [path / PLY_NAME, path / NPZ_NAME]

    # -- motion --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Number of Gaussians."""
        return len(self.gaussians.binding)

    @property
    def num_timesteps(self) -> int:
        """Timesteps of its motion: 0 ... num_timesteps - 1."""
        return self._tracked.num_timesteps

    def pose(
        self,
        timestep: int = 0,
        *,
        expression: Mapping[str, float] | Mapping[int, float] | None = None,
        jaw: Sequence[float] | None = None,
        eyes: Sequence[float] | None = None,
        neck: Sequence[float] | None = None,
        rotation: Sequence[float] | None = None,
    ) -> FlamePose:
        """The pose at a timestep, with parts of it replaced; for `render`.

        Args:
            timestep: 0 ... num_timesteps - 1.
            expression: coefficients by their number, or by their name where the head names them (`head.expression_names`); all
                others are 0. The open head's go from 0 to 1, FLAME's from about -3 to 3.
            jaw: axis-angle in radians (3); +x opens the mouth, 0.3 is wide.
            eyes: axis-angle in radians (6), the left eye, then the right one; +x looks down, +y to the subject's left.
            neck: axis-angle in radians (3), of the head on the neck.
            rotation: axis-angle in radians (3), of everything.

        Raises:
            ValueError: there is no such timestep or expression, or a rotation has another length.
        """
        pose = self._pose_of(timestep)
        given = {"rotation": rotation, "neck": neck, "jaw": jaw, "eyes": eyes}
        parts: dict[str, torch.Tensor] = {}
        for name, value in given.items():
            if value is None:
                continue
            row = torch.as_tensor(value, dtype=torch.float32).reshape(-1)
            if len(row) != _DEGREES_OF_ROTATION[name] or not bool(row.isfinite().all()):
                raise UserError(
                    f"{name} {value}: expected {_DEGREES_OF_ROTATION[name]} finite numbers, axis-angle in radians."
                )
            parts[name if name == "rotation" else f"{name}_pose"] = row[None].to(pose.expr)
        if expression is not None:
            parts["expr"] = torch.zeros_like(pose.expr)
            for key, amount in expression.items():
                parts["expr"][0, self._expression(key)] = float(amount)
        return replace(pose, **parts)

    @in_parameters
    def playing(
        self,
        motion: Motion,
        *,
        head_pose: HeadPose = "still",
        neutral: Neutral | None = None,
        smooth: float = 0.0,
    ) -> Avatar:
        """This avatar with another motion; the person stays who it is.

        Args:
            motion: of any head of the same model.
            head_pose: `still`, `relative` (moves as the driver's does about its mean) or `absolute`.
            neutral: `zero`: expressions as recorded; `median`: relative to each person's resting face; `calm`: relative to each
                person's calmest frames. None: `calm` for a video, else `zero`.
            smooth: standard deviation in frames of a Gaussian over time; 0 for none.

        Raises:
            ValueError: the motion belongs to another head model, or the options do not fit it.
        """
        options = RetargetOptions(head_pose, neutral, None, smooth)
        device = self.gaussians.binding.device
        played, _ = drive(motion.recorded, self._tracked.motion().to("cpu"), self.head, options)
        head = TrackedHead(self._tracked.flame, played.to(device)).to(device)
        head.take_offset(self._tracked)
        return replace(self, gaussians=replace(self.gaussians, head=head))

    # -- images --------------------------------------------------------------------------------------------------------

    @in_parameters
    def cameras(self, count: int = 4, *, width: int = 256, height: int = 256) -> list[Camera]:
        """Cameras on an arc in front of the face, a metre away.

        Args:
            count: 1 to 16; the camera straight ahead is always among them.
            width, height: of the images, pixels.

        Raises:
            ValueError: a number out of range.
        """
        settings = ViewSettings(cameras=count, timesteps=1, resolution=(width, height))
        settings.check()
        return cameras_around(self._tracked, list(range(self.num_timesteps)), settings)

    @torch.no_grad()
    def render(self, camera: Camera, timestep: int | FlamePose = 0) -> Image:
        """What a camera sees.

        Args:
            camera: from where.
            timestep: 0 ... num_timesteps - 1, or what `pose` returned.

        Returns:
            (height, width, 3) float32 RGB in [0, 1] on white.

        Raises:
            ValueError: there is no such timestep.
        """
        image: np.ndarray = self.render_views([camera], timestep)[0]
        return image

    @torch.no_grad()
    def render_views(
        self, cameras: Sequence[Camera], timestep: int | FlamePose = 0
    ) -> Float[np.ndarray, "views height width 3"]:
        """What several cameras of one image size see of one pose; see `render`."""
        if not cameras or len({(camera.width, camera.height) for camera in cameras}) != 1:
            raise UserError(f"cameras: expected at least one, all of one image size; found {len(cameras)}.")
        splats = self._splats(self._pose_of(timestep))
        viewmats, Ks = camera_matrices(cameras, self.gaussians.params["means"])
        image, _, _ = rasterize(
            *splats.tensors,
            viewmats,
            Ks,
            cameras[0].width,
            cameras[0].height,
            sh_degree=splats.sh_degree,
            backgrounds=viewmats.new_ones(len(cameras), 3),
            rasterize_mode=self.rasterize_mode,
        )
        rendered: np.ndarray = image.clamp(0, 1).cpu().numpy()
        return rendered

    @in_parameters
    def edit(
        self,
        editor: Editor,
        prompt: str,
        cameras: Sequence[Camera] | None = None,
        *,
        timestep: int = 0,
        seed: int = 0,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        fit_steps: int = 200,
        progress: Callable[[int, int], None] | None = None,
    ) -> EditedBatch:
        """Edits one batch of views and fits the Gaussians to them.

        One round of what `ns-train edit3dgs` repeats for every timestep: good to try prompts and seeds. What no camera of the batch
        sees stays as it was. Warns when the editor was never taught the prompt.

        Args:
            editor: from `load_editor`, or any other `Editor`.
            prompt: an instruction, for example "Make him look older".
            cameras: of one image size; None: `self.cameras()`.
            timestep: 0 ... num_timesteps - 1, that the views show.
            seed: of the editor's noise.
            guidance_scale: weight of the prompt; None for the editor's own.
            image_guidance_scale: weight of the unedited image; None for the editor's own.
            fit_steps: of the fit, one view each; 0: the edited images alone.
            progress: is told the editor's denoising steps done and to do.

        Raises:
            ValueError: there is no such timestep, or an argument is out of range.
        """
        views = tuple(self.cameras() if cameras is None else cameras)
        if fit_steps < 0:
            raise UserError(f"fit_steps {fit_steps}: expected 0 or more.")
        pose = self._pose_of(timestep)
        originals = self.render_views(views, pose)
        if warning := editor.unknown_instruction(prompt):
            warnings.warn(warning, stacklevel=2)
        request = EditRequest(
            prompt=prompt,
            images=originals,
            originals=originals,
            c2w=np.stack([camera.c2w for camera in views]).astype(np.float32),
            K=np.stack([camera.K for camera in views]).astype(np.float32),
            timesteps=(timestep,) * len(views),
            canonical=canonical_views(self.gaussians, pose, views, self.rasterize_mode),
            seed=seed,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
        )
        images = editor.edit(request, progress).images
        for view, image in enumerate(images):
            check_finite(image, view)
        fitted = fitted_to(
            images,
            self.gaussians,
            pose,
            views,
            fit_steps,
            mode=self.rasterize_mode,
            scene=self._scene,
            seed=seed,
        )
        return EditedBatch(replace(self, gaussians=fitted), images, originals, views, request.timesteps)

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _tracked(self) -> TrackedHead:
        return self.gaussians.head

    @cached_property
    def _scene(self) -> WorldSplats | None:
        return None if self.backdrop is None else self.backdrop.placed

    def _splats(self, pose: FlamePose, scene: bool = True) -> WorldSplats:
        with torch.no_grad():
            return self.gaussians.splats(pose).joined(self._scene if scene else None)

    def _pose_of(self, timestep: int | FlamePose) -> FlamePose:
        if isinstance(timestep, FlamePose):
            return timestep
        last = self.num_timesteps - 1
        if isinstance(timestep, bool) or int(timestep) != timestep or not 0 <= timestep <= last:
            raise UserError(f"timestep {timestep}: the avatar's motion has the timesteps 0 to {last}.")
        pose = self._tracked.pose_at(timestep / max(last, 1))
        return FlamePose(**{name: value.detach() for name, value in vars(pose).items()})

    def _expression(self, key: str | int) -> int:
        names, count = self.head.expression_names, self._tracked.pose["expr"].shape[1]
        if isinstance(key, str):
            if names is None or key not in names:
                known = (
                    "its expressions have numbers, no names"
                    if names is None
                    else f"it knows {', '.join(names)}"
                )
                raise UserError(
                    f"expression {key!r}: {self.head.source.name} has none of this name; {known}."
                )
            key = names.index(key)
        if not 0 <= key < count:
            raise UserError(f"expression {key}: the avatar has the coefficients 0 to {count - 1}.")
        return key


def _refuse_existing(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ExistingFileError(f"{path} is there already. Give another name, or overwrite=True.")
