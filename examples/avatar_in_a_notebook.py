# %% [markdown]
# An avatar in a notebook: load it, look at it, pose it, drive it, edit it. Needs no GPU, no download and no training.
# Give a run of `ns-train` to use your own avatar:
#     python examples/avatar_in_a_notebook.py --avatar outputs/demo/base/edit3dgs/run --output pictures

# %% What this run is asked for (in a notebook, leave the defaults)
import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image

from edit3dgs_ns import Avatar, Camera, Motion, load_editor

parser = argparse.ArgumentParser()
parser.add_argument("--avatar", default="demo", help="a run, an exported folder, or demo")
parser.add_argument("--output", type=Path, default=Path("outputs/notebook"))
parser.add_argument("--size", type=int, default=256, help="side of the images in pixels")
parser.add_argument("--fit-steps", type=int, default=200)
options, _ = parser.parse_known_args()
options.output.mkdir(parents=True, exist_ok=True)


def save(name: str, *rows: list[np.ndarray]) -> None:
    """Images in [0, 1], side by side in rows, as a PNG."""
    sheet = np.concatenate([np.concatenate(row, axis=1) for row in rows])
    Image.fromarray(np.rint(255 * sheet).astype(np.uint8)).save(options.output / name)


# %% An avatar, and cameras around it
avatar = Avatar.load(options.avatar)
cameras = avatar.cameras(4, width=options.size, height=options.size)
front = Camera.look_at((0.0, 0.0, 1.0), width=options.size, height=options.size)
save("views.png", list(avatar.render_views(cameras)))

# %% Its own motion, and a pose of ours
last = avatar.num_timesteps - 1
wide_open = avatar.pose(jaw=(0.25, 0.0, 0.0), neck=(0.0, 0.3, 0.0))
save("poses.png", [avatar.render(front, 0), avatar.render(front, last), avatar.render(front, wide_open)])

# %% A motion from a file: here ARKit's coefficients, as face-tracking apps record them
recording = options.output / "recording.json"
frames = [
    {"jawOpen": 0.8 * k / 3, "mouthSmileLeft": 1 - k / 3, "mouthSmileRight": 1 - k / 3} for k in range(4)
]
recording.write_text(json.dumps({"fps": 30, "frames": frames}))
talking = avatar.playing(Motion.load(recording, avatar))
save("motion.png", [talking.render(front, timestep) for timestep in range(talking.num_timesteps)])

# %% One batch of views, edited so that they agree, and the avatar fitted to them
batch = avatar.edit(
    load_editor("demo"), "Turn him into a bronze statue", cameras, fit_steps=options.fit_steps
)
save("edit.png", list(batch.originals), list(batch.images), list(batch.avatar.render_views(cameras)))

# %% Keep it: `save` for this package, `export` for other programs
batch.avatar.save(options.output / "edited.ckpt", overwrite=True)
batch.avatar.export(options.output / "edited.ply", overwrite=True)
