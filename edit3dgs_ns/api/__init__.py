"""The Python API: load an avatar, pose it, render it, edit one batch of views, save it. Needs no Nerfstudio.

    from edit3dgs_ns import Avatar, Camera, Motion, load_editor

    avatar = Avatar.load("outputs/demo/base/edit3dgs/run")       # a run, an exported folder, or "demo"
    image = avatar.render(Camera.look_at((0.2, 0.0, 1.0)), timestep=3)   # (height, width, 3) in [0, 1]
    talking = avatar.playing(Motion.load("take.csv", avatar))
    older = avatar.edit(load_editor("demo"), "Make him look older", avatar.cameras(4)).avatar
    older.export("older")

Conventions: metres, y up, an unturned face looks along +z; cameras have OpenGL axes; images are float32 RGB in [0, 1] on white.
"""

from edit3dgs_ns.api.avatar import Avatar, Motion
from edit3dgs_ns.api.avatar import EditedBatch as EditedBatch
from edit3dgs_ns.api.editors import load_editor
from edit3dgs_ns.capture.cameras import Camera
from edit3dgs_ns.editing.editor import Editor, EditResult

__all__ = ["Avatar", "Camera", "EditResult", "Editor", "Motion", "load_editor"]
