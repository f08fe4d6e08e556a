"""Programs of the project's own: they are not installed. Run them from the project's folder with `.venv/bin/python -m`.

tools.data     makes what the package embeds: open head, demo editors, demo CLIP, web viewer
tools.measure  makes what the documentation says: benchmarks, ablation, avatar experiments, results
"""
