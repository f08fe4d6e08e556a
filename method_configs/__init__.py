"""Nerfstudio method configurations, one file per `ns-train` method.

Nerfstudio imports them for every `ns-*` command, so this is where the parts that know nothing of each other are connected: the
viewer's controls, the class paths that older runs name in their config.yml, the programs that Nerfstudio asks the system for, and
a check of the quotes in `ns-train edit3dgs --prompt`, and who hides warnings that only authors of libraries can act on.
"""

from edit3dgs_ns.bundled_programs import provide_bundled_programs
from edit3dgs_ns.commands.quiet import quiet_nerfstudio
from edit3dgs_ns.quotes import stop_ns_train
from edit3dgs_ns.runs.class_paths import accept_older_class_paths
from edit3dgs_ns.viewer.connect import connect_viewer

quiet_nerfstudio()
stop_ns_train()
accept_older_class_paths()
connect_viewer()
provide_bundled_programs()
