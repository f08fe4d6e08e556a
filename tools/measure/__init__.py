"""Measures what the documentation says, and compares.

tools.measure.benchmarks          `make bench`: speed and memory of this machine, outputs/bench.json
tools.measure.ablation            `make ablation`: what makes edited views agree and keep the expression, outputs/ablation.json
tools.measure.avatar_experiments  what each part of an avatar's training gives, outputs/avatar_experiments.json
tools.measure.judge               how many bad edited views are found, and good ones refused: outputs/judge.json
tools.measure.ray                 edits in two Ray actors against one process: outputs/ray.json
tools.measure.results             `make results`: runs all of them and compares README.md and docs/ with what they found
tools.measure.pages               opens web pages and the viewer in a headless browser; used by the others and by tests
results_nersemble.sh              the paper's protocol on a NeRSemble capture, for a GPU and real weights
"""
