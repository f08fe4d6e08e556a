"""Checks of this machine: packages, head models, weights, programs and compilers, each as a list of findings."""
