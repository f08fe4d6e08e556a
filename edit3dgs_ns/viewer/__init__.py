"""The controls that `ns-viewer` and `ns-train` show for an avatar. Importing this package costs nothing.

controls.py     the way in: what Nerfstudio finds on the model
desk.py         puts everything below together
scene.py        state of the window: pose, layers, before or after
timeline.py     its clock: which frame, paused or playing
motions.py      motions to play: the avatar's own, and files
pose.py         sliders that pose the head by hand
layers.py       the mesh and the regions of the rig, drawn beside the splats
compare.py      before and after in one image
camera.py       where a visitor's camera stands at first
panel.py        the tabs Move and Look
background.py   the scene around the avatar, in the tab Look
edit_panel.py   the tab Edit
editing.py      actions of its buttons
worker.py       the thread that previews and edits, with preview.py and edit_training/session.py
guard.py        refuses foreign pages and malformed messages, with origins.py, messages.py and values.py
text.py         text and images for all tabs
"""
