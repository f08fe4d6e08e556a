"""`ns-train rigged-splatfacto`: the model of a rigged Gaussian avatar, its data, optimizers and checkpoints.

What `ns-train edit3dgs` adds is in `edit_training/`.
"""
