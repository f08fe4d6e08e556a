"""Where a visitor's camera stands at first: in front of the head, upright (heads have y up, Nerfstudio's viewer z)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import viser
from jaxtyping import Float
from nerfstudio.cameras.cameras import Cameras
from nerfstudio.viewer.viewer import VISER_NERFSTUDIO_SCALE_RATIO


@dataclass(frozen=True)
class Standpoint:
    """A camera that looks at a point."""

    position: Float[np.ndarray, " 3"]
    """Metres."""
    target: Float[np.ndarray, " 3"]
    fov: float
    """Vertical field of view, radians."""

    @classmethod
    def in_front(cls, cameras: Cameras, vertices: Float[torch.Tensor, "vertices 3"]) -> Standpoint:
        """That of the training camera which sees the head most from the front.

        Args:
            cameras: of the capture.
            vertices: of the head, metres.
        """
        centre = (vertices.max(dim=0).values + vertices.min(dim=0).values).cpu().numpy() / 2
        places = cameras.camera_to_worlds[:, :3, 3].cpu().numpy()
        directions = (places - centre) / np.linalg.norm(places - centre, axis=1, keepdims=True)
        front = int(directions[:, 2].argmax())
        fov = 2 * np.arctan(float(cameras.height[front]) / 2 / float(cameras.fy[front]))
        return cls(places[front], centre, float(fov))

    def show_to(self, client: viser.ClientHandle) -> None:
        """Put a visitor's camera there."""
        with client.atomic():
            client.camera.fov = self.fov
            client.camera.up_direction = (0.0, 1.0, 0.0)
            client.camera.position = self.position * VISER_NERFSTUDIO_SCALE_RATIO
            client.camera.look_at = self.target * VISER_NERFSTUDIO_SCALE_RATIO
