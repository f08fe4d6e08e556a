"""Random people, poses, cameras and lights: what a training set of edits is rendered from.

rng = np.random.default_rng(0) scene, light = random_scene(rng), random_light(rng) camera =
random_camera(rng, 256, 256) hits = scene.trace(camera.c2w, camera.K, camera.width, camera.height,
samples_per_pixel=4)
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edit3dgs_ns.capture.cameras import Camera, intrinsics, look_at
from edit3dgs_ns.synthetic.appearance import Light
from edit3dgs_ns.synthetic.identity import Identity, random_identity
from edit3dgs_ns.synthetic.motion import FACES, face
from edit3dgs_ns.synthetic.scene import Frame, Scene

HEAD_CENTRE = np.array([0.0, -0.015, -0.025])
"""What cameras aim at, metres."""
HEAD_EXTENT = 0.40
"""Height of a framed head with hair and collar, metres."""


def random_scene(
    rng: np.random.Generator, identity: Identity | None = None, flame_model_path: Path | None = None
) -> Scene:
    """A person (drawn too unless given; keep one for several frames, baking it takes about 0.3 s) in a
    random pose.
    """
    identity = identity or random_identity(int(rng.integers(2**31)), flame_model_path)
    return Scene(identity, random_frame(rng, identity))


def random_frame(rng: np.random.Generator, identity: Identity) -> Frame:
    """A random expression (one or two named ones, blended), gaze, jaw and turn of the head."""
    weights = np.zeros(len(FACES))
    first, second = rng.choice(len(FACES), 2, replace=False)
    weights[first] = rng.uniform(0.2, 1.0)
    weights[second] = rng.uniform(0.0, 0.5) * (rng.random() < 0.5)
    if rng.random() < 0.2:
        weights[:] = 0.0
    names = list(FACES)
    amounts: dict[str, float] = {}
    jaw = 0.0
    for name, weight in zip(names, weights, strict=True):
        for action, amount in FACES[name].items():
            if action == "jaw":
                jaw += weight * amount
            else:
                amounts[action] = amounts.get(action, 0.0) + weight * amount
    blink = float(rng.choice([0.0, 0.0, 0.0, 1.0]) * rng.uniform(0.3, 1.0))
    amounts["eyeBlinkLeft"] = max(amounts.get("eyeBlinkLeft", 0.0), blink)
    amounts["eyeBlinkRight"] = max(amounts.get("eyeBlinkRight", 0.0), blink)
    gaze = np.array([rng.normal(0.0, 0.08), rng.normal(0.0, 0.14)]).clip(-0.3, 0.3)
    turn = rng.normal(0.0, [0.05, 0.07, 0.03])
    neck = rng.normal(0.0, [0.07, 0.12, 0.05]).clip(-0.3, 0.3)
    jaw = min(jaw + float(rng.random() < 0.3) * float(rng.uniform(0.0, 0.2)), 0.40)
    return face(identity.head, amounts, jaw=jaw, gaze=gaze, neck=neck, rotation=turn)


def random_camera(rng: np.random.Generator, width: int, height: int) -> Camera:
    """A camera of the frontal half-sphere, about a metre away, framing the head a little differently each
    time.
    """
    azimuth, elevation = np.radians([rng.uniform(-48.0, 48.0), rng.uniform(-15.0, 23.0)])
    direction = np.array(
        [np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)]
    )
    distance = rng.uniform(0.85, 1.2)
    target = HEAD_CENTRE + rng.normal(0.0, 0.010, 3)
    K = intrinsics(width, height, distance, HEAD_EXTENT * rng.uniform(0.92, 1.15))
    return Camera(
        look_at(target + distance * direction, target, roll=rng.normal(0.0, 0.02)), K, width, height
    )


def random_light(rng: np.random.Generator) -> Light:
    """Soft studio light with the key somewhere in front and above, of slightly varying colour and
    contrast.
    """
    if rng.random() < 0.35:
        return Light()
    side = rng.uniform(-1.0, 1.0)
    key = _unit(np.array([0.75 * side, rng.uniform(0.15, 0.8), 0.8]))
    fill = _unit(np.array([-0.8 * np.sign(side) * rng.uniform(0.4, 1.0), rng.uniform(-0.1, 0.4), 0.7]))
    warm = rng.normal(0.0, 0.02)
    key_power, fill_power, sky_power = (
        rng.uniform(0.58, 0.86),
        rng.uniform(0.16, 0.36),
        rng.uniform(0.40, 0.58),
    )

    def tint(power: float, warmth: float) -> tuple[float, float, float]:
        return (float(power * (1 + warmth)), float(power), float(power * (1 - warmth)))

    return Light(
        key_direction=key,
        key=tint(key_power, 0.03 + warm),
        fill_direction=fill,
        fill=tint(fill_power, -0.04 - warm),
        sky=tint(sky_power, -0.02),
        ground=tint(0.56 * sky_power, 0.03),
    )


def _unit(v: np.ndarray) -> tuple[float, float, float]:
    v = v / np.linalg.norm(v)
    return (float(v[0]), float(v[1]), float(v[2]))
