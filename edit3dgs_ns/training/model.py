"""`rigged-splatfacto`: Gaussians bound to the triangles of a FLAME head, as a Nerfstudio model.

A Splatfacto model whose Gaussians live in triangle-local coordinates and are posed for the time of the camera. It stays a
`SplatfactoModel` because `ns-export`, the viewer's background and its export tab look for one; `means`, `scales` and `quats` are
therefore Gaussians in world coordinates, at the time last shown. The trained, local parameters are in `gauss_params`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Type  # noqa: UP035  (tyro reads these at run time)

import torch
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.data.scene_box import OrientedBox
from nerfstudio.engine.optimizers import Optimizers
from nerfstudio.models.splatfacto import SplatfactoModel
from torch import Tensor, nn

from edit3dgs_ns.flame.model import FlamePose
from edit3dgs_ns.splats import losses
from edit3dgs_ns.splats.binding import TriangleFrames, WorldGaussians, triangle_frames
from edit3dgs_ns.splats.rigged_gaussians import colors_of_degree, pose_gaussians
from edit3dgs_ns.splats.views import viewmats_from_c2w
from edit3dgs_ns.splats.world_splats import Backdrop, WorldSplats
from edit3dgs_ns.training.coarse_to_fine import halved_camera, halved_image, halvings_at
from edit3dgs_ns.training.controls import AvatarControls
from edit3dgs_ns.training.lpips import LazyLpips
from edit3dgs_ns.training.model_setup import (
    check_avatar_state,
    has_one_camera,
    initial_appearance,
    initial_gaussians,
    refuse_unsupported,
    refuse_untimed,
    shared_size,
    shared_time,
    take_over_appearance,
    tracked_head,
    training_timesteps,
)
from edit3dgs_ns.training.options import AvatarModelOptions, chosen

MOTION_GROUPS = {
    "flame_expr": "expr",
    "flame_translation": "translation",
    "flame_rotation": "rotation",
    "flame_neck": "neck_pose",
    "flame_jaw": "jaw_pose",
    "flame_eyes": "eyes_pose",
}
"""Optimizers of the head's parameters over time, and what they train."""


_OFF_MESH = 3.0
"""Distance from its triangle, in free distances, from which a Gaussian is part of another form than the mesh."""


@dataclass
class RiggedSplatfactoModelConfig(AvatarModelOptions):
    """Gaussians bound to a FLAME head (GaussianAvatars)."""

    _target: Type = field(default_factory=lambda: RiggedSplatfactoModel)  # noqa: UP006
    """target class to instantiate"""


class RiggedSplatfactoModel(SplatfactoModel):
    """Gaussians that follow a head. Needs the metadata of `nersemble-data`: "flame_motion" and, optionally, "flame_model_path"."""

    config: RiggedSplatfactoModelConfig
    binding: Tensor
    """(N,) the face of every Gaussian."""
    follows_form: bool
    """An edit changes the form: what is drawn over pure white costs."""
    needs_camera_times = False
    """Refuse cameras without a time, instead of showing `time_without_camera_time`: for renders of camera paths."""
    sh_degree_reached: Tensor
    """() the degree of spherical harmonics in use; saved, so that an avatar trained on from step 0 keeps all of its degrees."""

    # -- set-up -------------------------------------------------------------------------------------------------------

    def populate_modules(self) -> None:
        """Builds head, Gaussians, metrics and densification. Does not call Splatfacto's, which downloads LPIPS and needs CUDA."""
        refuse_unsupported(self.config)
        self.head = tracked_head(self.kwargs.get("metadata") or {})
        metadata = self.kwargs.get("metadata") or {}
        self._tracked, self._timesteps = self.head.motion(), training_timesteps(self.head, metadata)
        self.one_camera = has_one_camera(metadata)
        gaussians, binding = initial_gaussians(self.head, self.config)
        self.gauss_params = nn.ParameterDict(gaussians)
        self.register_buffer("binding", binding)
        self.appearance = initial_appearance(self.head, self.config, self._timesteps)
        self.register_buffer("sh_degree_reached", torch.zeros((), dtype=torch.long))
        self.step = 0
        self.time_without_camera_time = 0.0
        self.crop_box: OrientedBox | None = None
        self.background_color = torch.ones(3)
        self.camera_optimizer = self.config.camera_optimizer.setup(
            num_cameras=self.num_train_data, device="cpu"
        )
        self.info: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self._lpips = LazyLpips()
        self.follows_form = False
        self._image_loss: Callable[[Tensor, Tensor], Tensor] | None = None
        self._shown: tuple[WorldGaussians, Tensor] | None = None
        self.backdrop: Backdrop | None = None
        self.controls = AvatarControls()
        self.strategy = self._make_strategy()
        self._start_strategy()

    def _make_strategy(self) -> Any:
        from edit3dgs_ns.splats.mcmc import BoundMcmcStrategy
        from edit3dgs_ns.splats.strategy import BoundStrategy

        config = self.config
        strategy = BoundMcmcStrategy if config.growth == "mcmc" else BoundStrategy
        return strategy(
            prune_opa=config.cull_alpha_thresh,
            grow_grad2d=config.densify_grad_thresh,
            grow_scale3d=config.densify_size_thresh,
            grow_scale2d=config.split_screen_size,
            prune_scale3d=config.cull_scale_thresh,
            prune_scale2d=config.cull_screen_size,
            refine_scale2d_stop_iter=config.stop_screen_size_at,
            refine_start_iter=config.warmup_length,
            refine_stop_iter=config.stop_split_at,
            reset_every=config.reset_alpha_every * config.refine_every,
            refine_every=config.refine_every,
            absgrad=config.use_absgrad,
            max_gaussians=config.max_gaussians,
        )

    def _start_strategy(self) -> None:
        with torch.no_grad():
            sizes = triangle_frames(self.head.canonical_vertices(), self.head.faces).size
        self.strategy_state = self.strategy.initialize_state(binding=self.binding, face_sizes=sizes)

    def train_by(self, config: RiggedSplatfactoModelConfig) -> None:
        """Other options of training from now on."""
        self.config = config
        self.strategy = self._make_strategy()
        self._start_strategy()

    @property
    def view_dependent(self) -> bool:
        """Whether training goes beyond spherical harmonics of degree 0."""
        return chosen(self.config.view_dependence, not self.one_camera)

    @property
    def fills_unseen(self) -> bool:
        """Whether Gaussians that no training camera shows are completed from the mirrored side."""
        return chosen(self.config.fill_unseen, self.one_camera)

    @property
    def clears_background(self) -> bool:
        """Whether what is drawn over pure white costs as much as black would."""
        return chosen(self.config.clear_background, self.one_camera)

    def forget_shown(self) -> None:
        """To be called after Gaussians were changed by somebody else."""
        self._shown = None

    def get_param_groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters by optimizer: the Gaussians', `light`, and one for each of FLAME's: MOTION_GROUPS."""
        groups = {name: [parameter] for name, parameter in self.gauss_params.items()}
        if self.config.relighting:
            groups["light"] = [self.appearance.light]
        if self.config.fine_tune_motion:
            groups |= {group: [self.head.pose[name]] for group, name in MOTION_GROUPS.items()}
        return groups

    def load_state_dict(self, dict: Mapping[str, Any], **kwargs: Any) -> Any:  # type: ignore[override]
        """Loads an avatar with any number of Gaussians and timesteps.

        Parameters keep their identity (`param.data` is resized), so that optimizers built before stay attached to what is rendered.

        Raises:
            ValueError: the state is none of a rigged avatar, or one of another head model.
        """
        check_avatar_state(dict, self.head)
        dict = take_over_appearance(self, dict)
        for name, tensor in self.state_dict(keep_vars=True).items():
            if name in dict and tensor.shape != dict[name].shape:
                tensor.data = torch.empty(dict[name].shape, dtype=tensor.dtype, device=tensor.device)
                tensor.grad = None
        result = super(SplatfactoModel, self).load_state_dict(dict, **kwargs)
        self.head.forget_shape()
        self.appearance.set_rest(self.head.rest_frames())
        self._shown = None
        self._start_strategy()
        return result

    def _apply(self, fn: Any, recurse: bool = True) -> RiggedSplatfactoModel:
        """Moves to another device (`Module.to`), with the tensors that are no buffers."""
        super()._apply(fn, recurse)
        tracked: dict[str, Any] = {
            name: None if value is None else fn(value) for name, value in vars(self._tracked).items()
        }
        self._tracked, self._timesteps = replace(self._tracked, **tracked), fn(self._timesteps)
        state = {name: fn(x) if isinstance(x, Tensor) else x for name, x in self.strategy_state.items()}
        (face_sizes,) = state["face_sizes"]
        self.strategy_state = state | {"binding": self.binding, "face_sizes": (fn(face_sizes),)}
        self._shown = None
        self.backdrop = None if self.backdrop is None else self.backdrop.to(self.device)
        return self

    def update_to_step(self, step: int) -> None:
        """Called with the step of the checkpoint that is loaded."""
        self.step = step

    # -- training -----------------------------------------------------------------------------------------------------

    def step_cb(self, optimizers: Optimizers, step: int) -> None:
        """Before each training step."""
        self.step = step
        self.optimizers = optimizers.optimizers
        degree = min(
            step // self.config.sh_degree_interval, self.config.sh_degree if self.view_dependent else 0
        )
        self.sh_degree_reached.clamp_(min=degree)
        if self.config.fine_tune_motion and self.config.center_tuning:
            self.head.center(self._tracked, self._timesteps)

    def step_post_backward(self, step: int) -> None:
        """After each training step: densification, which may replace all Gaussian parameters."""
        assert step == self.step
        gaussian_optimizers = {name: self.optimizers[name] for name in self.gauss_params}
        self.strategy.step_post_backward(
            params=self.gauss_params,
            optimizers=gaussian_optimizers,
            state=self.strategy_state,
            step=step,
            info=self.info,
        )
        self.binding = self.strategy_state["binding"]
        self._shown = None

    def get_loss_dict(
        self, outputs: dict[str, Any], batch: dict[str, Any], metrics_dict: Any = None
    ) -> dict[str, Tensor]:
        """Image loss and, in training, the two binding losses over the Gaussians that were visible (GaussianAvatars, eq. 5)."""
        rendered, target = _views(outputs["rgb"]), _views(self.get_gt_img(batch["image"]))
        image_loss = self._image_loss or partial(losses.image_loss, ssim_weight=self.config.ssim_lambda)
        result = {"main_loss": image_loss(rendered, target)}
        clears = self.clears_background if self._image_loss is None else self.follows_form
        if self.training and clears:
            result["background_loss"] = losses.background_loss(_views(outputs["accumulation"]), target)
        if self.training:
            visible = (self.info["radii"] > 0).any(dim=0)
            config = self.config
            if (
                self._image_loss is not None
            ):  # what an edit, this one or one before, grew off the mesh stays there
                visible &= self.gauss_params["means"].norm(dim=-1) < _OFF_MESH * config.position_threshold
            distance, size = losses.binding_losses(
                self.gauss_params["means"],
                self.gauss_params["scales"],
                visible,
                config.position_threshold,
                config.scale_threshold,
            )
            result["position_loss"] = config.position_loss_weight * distance
            result["scale_loss"] = config.scale_loss_weight * size
            if config.opacity_loss_weight > 0:
                opacities = torch.sigmoid(self.gauss_params["opacities"][visible])
                result["opacity_loss"] = config.opacity_loss_weight * (1 - opacities).mean()
        return result

    def use_image_loss(self, loss: Callable[[Tensor, Tensor], Tensor] | None) -> None:
        """Compare renders and targets (views, height, width, 3) with this from now on; None for L1 and SSIM."""
        self._image_loss = loss

    @property
    def image_loss(self) -> Callable[[Tensor, Tensor], Tensor] | None:
        """The loss that `use_image_loss` has set; None for L1 and SSIM."""
        return self._image_loss

    def get_metrics_dict(self, outputs: dict[str, Any], batch: dict[str, Any]) -> dict[str, Any]:
        """PSNR of the batch and the number of Gaussians."""
        with torch.no_grad():
            value = losses.psnr(_views(outputs["rgb"]), _views(self.get_gt_img(batch["image"])))
        return {"psnr": value, "gaussian_count": self.num_points}

    def get_gt_img(self, image: Tensor) -> Tensor:
        """Images as float32 in [0, 1] on the model's device; in training of the size that is trained at this step."""
        image = image.to(self.device)
        image = image.float() / 255 if image.dtype == torch.uint8 else image
        return halved_image(image, self._halvings)

    @property
    def _halvings(self) -> int:
        """How often images are halved at this step: not those of an edit."""
        plain = self.training and self._image_loss is None
        return halvings_at(self.step, self.config) if plain else 0

    # -- rendering ----------------------------------------------------------------------------------------------------

    def gaussians_at(self, time: float | None) -> WorldGaussians:
        """Returns all Gaussians in world coordinates at a normalised time, t in [0, 1]; None: at the start. Differentiable."""
        return self.shown_at(time)[0]

    def shown_at(self, time: float | None) -> tuple[WorldGaussians, Float[Tensor, "gaussians bases 3"]]:
        """Returns all Gaussians in world coordinates and their SH coefficients (of the degree in use) at a normalised time.

        The time is in [0, 1]; None: at the start. Differentiable.
        """
        return self.shown_in(self.head.pose_at(self.time_without_camera_time if time is None else time))

    def shown_in(
        self, pose: FlamePose, frames: TriangleFrames | None = None
    ) -> tuple[WorldGaussians, Float[Tensor, "gaussians bases 3"]]:
        """The same in any pose of one frame of a motion; `frames` are the head's in it, where they are known already."""
        return pose_gaussians(
            dict(self.gauss_params.items()),
            int(self.sh_degree_reached),
            self.appearance,
            self.binding,
            self.head.under_offset(pose),
            self.head.frames_of(pose) if frames is None else frames,
        )

    def colors_in_use(self) -> Float[Tensor, "gaussians bases 3"]:
        """SH coefficients of the degrees that training has reached, as they are stored: without light and expression."""
        return colors_of_degree(dict(self.gauss_params.items()), int(self.sh_degree_reached))

    def get_outputs_for_camera(self, camera: Cameras, obb_box: OrientedBox | None = None) -> dict[str, Any]:
        """Renders a camera, the run's background included; in the viewer's window, as its controls are set."""
        self.set_crop(obb_box)
        seen = self.controls.outputs(camera.to(self.device))
        return self.get_outputs(camera.to(self.device), scene=self.scene()) if seen is None else seen

    def scene(self) -> WorldSplats | None:
        """Returns the placed background; None if the run has none."""
        return None if self.backdrop is None else self.backdrop.placed

    def get_outputs(  # type: ignore[override]
        self, camera: Cameras, pose: FlamePose | None = None, scene: WorldSplats | None = None
    ) -> dict[str, Any]:
        """Renders cameras that share one time.

        Args:
            camera: the cameras.
            pose: one frame, shown instead of what the motion has at the cameras' time.
            scene: drawn with the avatar, in one pass.

        Returns:
            rgb (height, width, 3) and accumulation (height, width, 1) in [0, 1], and outside training depth (height, width, 1) in
            metres. In training with a leading axis: (views, height, width, ...).

        Raises:
            ValueError: the cameras differ in time or size.
        """
        camera = halved_camera(camera.reshape((1,)) if camera.ndim == 0 else camera, self._halvings)
        refuse_untimed(camera, self.needs_camera_times)
        width, height = shared_size(camera)
        gaussians, colors = self.shown_at(shared_time(camera)) if pose is None else self.shown_in(pose)
        splats = self._with_scene(gaussians, colors, scene)
        if not self.training:
            self._shown = gaussians, colors
            if self.crop_box is not None:
                splats = splats.selected(self.crop_box.within(splats.gaussians.means).squeeze())
        background = torch.ones(3, device=self.device) if self.training else self._get_background_color()
        render, alpha = self._rasterize(camera, splats, width, height, background)
        if self.training:
            self.strategy.step_pre_backward(
                self.gauss_params, self.optimizers, self.strategy_state, self.step, self.info
            )
            return {"rgb": render, "accumulation": alpha, "background": background}
        depth = torch.where(alpha > 0, render[..., 3:4], render[..., 3:4].max())
        outputs = {"rgb": render[..., :3].clamp(0, 1), "depth": depth, "accumulation": alpha}
        if len(camera) == 1:
            outputs = {name: image[0] for name, image in outputs.items()}
        return outputs

    def draw(self, camera: Cameras, pose: FlamePose) -> Float[Tensor, "height width 3"]:
        """Renders one camera in a given pose on white, regardless of the camera's time; differentiable in the pose."""
        return self.draw_shown(camera, *self.shown_in(pose))[0]

    def draw_shown(
        self,
        camera: Cameras,
        gaussians: WorldGaussians,
        colors: Float[Tensor, "gaussians bases 3"],
        scene: WorldSplats | None = None,
    ) -> Float[Tensor, "views height width 3"]:
        """Renders the Gaussians of `shown_at` or `shown_in`, and a scene around them, for cameras of one size on white."""
        width, height = shared_size(camera)
        background = torch.ones(3, device=self.device)
        splats = self._with_scene(gaussians, colors, scene)
        render, _ = self._rasterize(camera, splats, width, height, background, depth=False)
        return render.clamp(0, 1)

    def _with_scene(
        self,
        gaussians: WorldGaussians,
        colors: Float[Tensor, "gaussians bases 3"],
        scene: WorldSplats | None,
    ) -> WorldSplats:
        opacities = torch.sigmoid(self.gauss_params["opacities"][:, 0])
        return WorldSplats(gaussians, opacities, colors).joined(scene)

    def _rasterize(
        self,
        camera: Cameras,
        splats: WorldSplats,
        width: int,
        height: int,
        background: Float[Tensor, " 3"],
        depth: bool = True,
    ) -> tuple[Tensor, Tensor]:
        from edit3dgs_ns.splats.rasterize import rasterize

        render, alpha, self.info = rasterize(
            *splats.tensors,
            viewmats_from_c2w(camera.camera_to_worlds.to(self.device)),
            camera.get_intrinsics_matrices().to(self.device),
            width,
            height,
            sh_degree=splats.sh_degree,
            backgrounds=background.expand(len(camera), 3),
            render_mode="RGB+ED" if depth and not self.training else "RGB",
            rasterize_mode=self.config.rasterize_mode,
            absgrad=self.config.use_absgrad and self.training,
        )
        return render, alpha

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def get_image_metrics_and_images(
        self, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """PSNR and SSIM, and LPIPS if its weights are on this machine (never downloaded); truth and render side by side."""
        target, rendered = self.get_gt_img(batch["image"]), outputs["rgb"]
        a, b = (image.permute(2, 0, 1)[None] for image in (target, rendered))
        metrics = {
            "psnr": float(losses.psnr(rendered, target)),
            "ssim": float(losses.ssim(rendered[None], target[None])),
        }
        perceptual = self._lpips(a, b)
        if perceptual is not None:
            metrics["lpips"] = perceptual
        return metrics, {"img": torch.cat([target, rendered], dim=1)}

    # -- what Nerfstudio's viewer and exporter read -------------------------------------------------------------------

    @property
    def num_points(self) -> int:
        """Number of Gaussians."""
        return len(self.gauss_params["means"])

    @property
    def means(self) -> Float[Tensor, "gaussians 3"]:
        """World coordinates, metres, at the time last shown."""
        return self._shown_gaussians()[0].means

    @property
    def quats(self) -> Float[Tensor, "gaussians 4"]:
        """World rotations, wxyz, at the time last shown."""
        return self._shown_gaussians()[0].quats

    @property
    def scales(self) -> Float[Tensor, "gaussians 3"]:
        """Log scales in metres, at the time last shown."""
        return torch.log(self._shown_gaussians()[0].scales)

    @property
    def shs_0(self) -> Float[Tensor, "gaussians 3"]:
        """SH coefficients of degree 0 at the time last shown."""
        return self._shown_gaussians()[1][:, 0]

    @property
    def shs_rest(self) -> Float[Tensor, "gaussians bases 3"]:
        """The other SH coefficients at the time last shown, zero beyond the degree in use."""
        colors = self._shown_gaussians()[1]
        result = torch.zeros_like(self.gauss_params["features_rest"])
        result[:, : colors.shape[1] - 1] = colors[:, 1:]
        return result

    def _shown_gaussians(self) -> tuple[WorldGaussians, Tensor]:
        if self._shown is None or len(self._shown[0].means) != self.num_points:
            with torch.no_grad():
                self._shown = self.shown_at(None)
        return self._shown


def _views(image: Tensor) -> Float[Tensor, "views height width 3"]:
    return image if image.ndim == 4 else image[None]
