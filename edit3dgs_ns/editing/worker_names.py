"""Where edits are computed: what `--pipeline.editor.workers` means. Imports neither PyTorch nor Ray."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass

from edit3dgs_ns.errors import MissingFileError, UserError

OPTION = "--pipeline.editor.workers"
_WORKERS = re.compile(r"(?P<count>[1-9]\d*)|(?:(?P<many>[1-9]\d*)@)?(?P<address>ray://[\w.\-]+:\d+)")


@dataclass(frozen=True)
class Workers:
    """Where edits are computed."""

    count: int
    """Actors; 0: as many as the cluster has GPUs, or processors if it has none."""
    address: str | None
    """Of a Ray cluster; None: of this machine alone."""


def parse_workers(text: str) -> Workers | None:
    """What `--pipeline.editor.workers` means; None for 1, this process alone.

    Args:
        text: a number, `ray://HEAD:10001`, or `8@ray://HEAD:10001`.

    Raises:
        UserError: it is none of these.
        MissingFileError: Ray is not installed.
    """
    found = _WORKERS.fullmatch(text.strip())
    if found is None:
        raise UserError(
            f"{OPTION} {text}: expected a number of at least 1, ray://HEAD:10001, or 8@ray://HEAD:10001."
        )
    count, address = int(found["count"] or found["many"] or 0), found["address"]
    if address is None and count == 1:
        return None
    if importlib.util.find_spec("ray") is None:
        raise MissingFileError(
            f"{OPTION} {text} needs Ray, which is not installed: pip install 'edit3dgs-ns[ray]'."
        )
    return Workers(count, address)
