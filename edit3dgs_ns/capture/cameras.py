"""Pinhole cameras of the capture: the frontal arc of NeRSemble's rig, and free ones for training pairs.

c2w is camera-to-world with OpenGL axes (x right, y up, looks along -z), in metres. Pixel (column j, row i)
has its centre at (j + 0.5, i + 0.5); K = [[fx, 0, cx], [0, fy, cy], [0, 0, 1]] with cy measured from the
top edge.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from edit3dgs_ns.errors import UserError

FRONT_CAMERA = 8
"""Index of the frontal camera of a 16-camera rig (NeRSemble's validation view)."""

# Azimuth (degrees, positive to the subject's left, that is to the right in the frontal image) and
# elevation of 16 cameras: two
# staggered rows with a middle row at the centre, as on NeRSemble's frame; index 8 looks straight at the face.
_ARC = (
    (-45.0, 14.0),
    (-39.0, -8.0),
    (-33.0, 17.0),
    (-26.0, -11.0),
    (-20.0, 9.0),
    (-13.0, 21.0),
    (-10.0, -13.0),
    (-6.0, 7.0),
    (0.0, 2.0),
    (6.0, -12.0),
    (10.0, 15.0),
    (17.0, -6.0),
    (24.0, 12.0),
    (32.0, -10.0),
    (39.0, 11.0),
    (45.0, -4.0),
)


@dataclass(frozen=True)
class Camera:
    """One pinhole camera."""

    c2w: Float[np.ndarray, "4 4"]
    """Camera-to-world, OpenGL axes (x right, y up, looks along -z), metres."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics in pixels, cy from the top edge."""
    width: int
    """Pixels."""
    height: int
    """Pixels."""

    @classmethod
    def look_at(
        cls,
        position: Sequence[float],
        target: Sequence[float] = (0.0, -0.012, -0.028),
        *,
        width: int = 256,
        height: int = 256,
        fov: float = 24.0,
    ) -> Camera:
        """A camera at `position` that looks at `target`; the image's upper edge is towards +y.

        Args:
            position: metres; y is up and an unturned face looks along +z, so (0, 0, 1) is a metre in front of it.
            target: metres; by default the middle of a head at the origin.
            width: image width in pixels.
            height: image height in pixels.
            fov: vertical field of view in degrees, between 0 and 180.

        Raises:
            ValueError: position and target coincide, the view is straight up or down, or a size or angle is out of range.
        """
        eye, aim = np.asarray(position, float), np.asarray(target, float)
        if eye.shape != (3,) or aim.shape != (3,) or not np.isfinite([eye, aim]).all():
            raise UserError(
                f"position {position} and target {target}: expected three finite numbers each, in metres."
            )
        if np.linalg.norm(np.cross(eye - aim, [0.0, 1.0, 0.0])) < 1e-6:
            raise UserError(
                f"position {position} and target {target}: they coincide or lie on a vertical line, so that no side of the "
                "image is up. Move the camera aside."
            )
        if width < 1 or height < 1 or not 0 < fov < 180:
            raise UserError(
                f"width {width}, height {height}, fov {fov}: expected at least one pixel and an angle between 0 and 180 degrees."
            )
        focal = height / (2 * math.tan(math.radians(fov) / 2))
        K = np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        return cls(look_at(eye, aim), K, width, height)

    def resized(self, width: int, height: int) -> Camera:
        """The same camera with images of another size, in pixels."""
        K = self.K * np.array([[width / self.width], [height / self.height], [1.0]])
        return Camera(self.c2w, K, width, height)

    @classmethod
    def from_transforms(cls, path: str | Path) -> list[Camera]:
        """The cameras of a capture: one for each camera number in a transforms file, in the order of the numbers.

        Args:
            path: a `transforms_*.json`, or a capture's folder (then its training cameras). The principal point is
                the image's middle, as GaussianAvatars has it, unless the file says from which edge it counts.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no transforms file, or one of its frames is damaged.
        """
        from edit3dgs_ns.capture.transforms import each_frame, find_capture, read_transforms

        path = Path(path).expanduser()
        source = (
            path
            if path.is_file() or path.suffix == ".json"
            else find_capture(path, "path") / "transforms_train.json"
        )
        cameras: dict[int, Camera] = {}
        for frame in each_frame(read_transforms(source), source):
            if isinstance(frame, Exception):
                raise frame
            w, h = frame.width, frame.height
            cx, cy = frame.principal_point()
            K = np.array([[frame.fx, 0.0, cx], [0.0, frame.fy, cy], [0.0, 0.0, 1.0]])
            cameras.setdefault(frame.camera_index, cls(frame.c2w, K, w, h))
        if not cameras:
            raise UserError(
                f"{source} lists no frames, so there is no camera in it. Give another split's file."
            )
        return [cameras[number] for number in sorted(cameras)]


def look_at(
    position: Float[np.ndarray, " 3"], target: Float[np.ndarray, " 3"], roll: float = 0.0
) -> Float[np.ndarray, "4 4"]:
    """c2w (OpenGL axes) of a camera at `position` looking at `target`; roll in radians about the view
    axis.
    """
    back = position - target
    back = back / np.linalg.norm(back)
    right = np.cross(np.array([0.0, 1.0, 0.0]), back)
    right /= np.linalg.norm(right)
    up = np.cross(back, right)
    c, s = np.cos(roll), np.sin(roll)
    c2w = np.eye(4)
    c2w[:3, 0], c2w[:3, 1], c2w[:3, 2], c2w[:3, 3] = c * right + s * up, c * up - s * right, back, position
    return c2w


def intrinsics(width: int, height: int, distance: float, extent: float) -> Float[np.ndarray, "3 3"]:
    """K that shows `extent` metres at `distance` metres along the image's shorter relative side.

    A head is about 1.25 times as high as wide, so an image wider than 4:5 is limited by its height.
    """
    focal = min(height / extent, width / (extent / 1.2)) * distance
    return np.array([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])


def arc_cameras(
    count: int, width: int, height: int, target: Float[np.ndarray, " 3"], extent: float, distance: float = 1.0
) -> list[Camera]:
    """`count` cameras (1 to 16) of the frontal arc, all aimed at `target` from `distance` metres.

    With fewer than 16 the directions are spread evenly over the arc, and the frontal one is always among
    them.
    """
    if not 1 <= count <= len(_ARC):
        raise UserError(
            f"cameras: {count} asked for, but the arc has 1 to {len(_ARC)}. Give --cameras 1..{len(_ARC)}."
        )
    cameras = []
    for index in arc_indices(count):
        azimuth, elevation = np.radians(_ARC[index])
        direction = np.array(
            [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
        )
        c2w = look_at(target + distance * direction, target)
        cameras.append(Camera(c2w, intrinsics(width, height, distance, extent), width, height))
    return cameras


def arc_indices(count: int) -> list[int]:
    """Places on the 16-camera arc (these are also the camera numbers in file names) for `count` cameras."""
    if count == 1:
        return [FRONT_CAMERA]
    places = np.round(np.linspace(0, len(_ARC) - 1, count)).astype(int)
    if FRONT_CAMERA not in places:
        places[np.argmin(np.abs(places - FRONT_CAMERA))] = FRONT_CAMERA
    return sorted(int(p) for p in places)


def project(
    points: Float[np.ndarray, "n 3"], camera: Camera
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
    """Pixel positions (x from the left, y from the top) and depths in metres of world points."""
    camera_from_world = np.linalg.inv(camera.c2w)
    local = points @ camera_from_world[:3, :3].T + camera_from_world[:3, 3]
    depth = -local[:, 2]
    x = camera.K[0, 0] * local[:, 0] / depth + camera.K[0, 2]
    y = -camera.K[1, 1] * local[:, 1] / depth + camera.K[1, 2]
    return np.stack([x, y], axis=1), depth
