"""What the set-up compiles."""

import importlib

from edit3dgs_ns.training import compiling

KERNELS = ["appearance", "binding", "binning", "frames", "losses", "projection", "sh", "ssim", "tiles"]
NOT_OF_A_DEFAULT_TRAINING = {"_means", "_means_backward"}
"""Of avatars whose Gaussians have expressions of their own."""


def test_every_kernel_of_a_training_has_run():
    compiling.compile_kernels()
    missing = set()
    for name in KERNELS:
        module = importlib.import_module(f"edit3dgs_ns.splats.cpu_{name}")
        functions = [f for f in vars(module).values() if getattr(f, "__module__", None) == module.__name__]
        # What others call is compiled into them.
        entries = [f for f in functions if hasattr(f, "signatures") and f.targetoptions["parallel"]]
        assert entries, name
        missing |= {f.__name__ for f in entries if not f.signatures}
    assert missing <= NOT_OF_A_DEFAULT_TRAINING
