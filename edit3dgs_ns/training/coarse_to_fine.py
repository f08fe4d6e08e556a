"""Training begins with halved images, which cost less and show where the head is as well."""

from __future__ import annotations

from copy import deepcopy

from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from torch import Tensor
from torch.nn import functional as F

from edit3dgs_ns.training.options import AvatarModelOptions


def halvings_at(step: int, config: AvatarModelOptions) -> int:
    """How often images are halved at a training step."""
    return max(config.num_downscales - step // config.resolution_schedule, 0)


def short_training_advice(steps: int, config: AvatarModelOptions) -> str | None:
    """What to say where a training of so many steps never sees its images whole; None where it does."""
    if halvings_at(steps - 1, config) == 0:
        return None
    return f"All {steps} steps train on halved images: a training this short may want --pipeline.model.num-downscales 0."


def halved_camera(camera: Cameras, halvings: int) -> Cameras:
    """The camera of an image that is halved so often; the image plane's edge stays where it is."""
    if halvings == 0:
        return camera
    camera = deepcopy(camera)
    camera.rescale_output_resolution(0.5**halvings)
    return camera


def halved_image(
    image: Float[Tensor, "*views height width channels"], halvings: int
) -> Float[Tensor, "*views rows columns channels"]:
    """Means of squares of pixels; what is left over at the right and at the bottom is left out, as of the camera's image."""
    if halvings == 0:
        return image
    stacked = image if image.ndim == 4 else image[None]
    pooled = F.avg_pool2d(stacked.movedim(-1, 1), 2**halvings).movedim(1, -1).contiguous()
    return pooled if image.ndim == 4 else pooled[0]
