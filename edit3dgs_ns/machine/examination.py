"""All checks of this machine.

A broken machine must not break a check, since that is what `edit3dgs doctor` is called for. Whether the demo can run depends only
on findings marked `required`.
"""

from __future__ import annotations

from edit3dgs_ns.machine.finding import Finding
from edit3dgs_ns.machine.models import check_heads, check_weights
from edit3dgs_ns.machine.packages import check_packages
from edit3dgs_ns.machine.system import check_machine, check_system


def examine() -> list[Finding]:
    """All checks, in the order of the table."""
    return [*check_machine(), *check_packages(), *check_heads(), *check_weights(), *check_system()]


def can_run_demo(findings: list[Finding]) -> bool:
    """Whether nothing that `make demo` needs is missing."""
    return not any(finding.required and finding.status == "missing" for finding in findings)
