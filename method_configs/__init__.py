"""Nerfstudio method configurations, one file per `ns-train` method.

Nerfstudio imports them for every `ns-*` command, so this is where the parts that know nothing of each other are connected: the
viewer's controls, and the class paths that older runs name in their config.yml.
"""

from edit3dgs_ns.runs.class_paths import accept_older_class_paths
from edit3dgs_ns.viewer.connect import connect_viewer

accept_older_class_paths()
connect_viewer()
