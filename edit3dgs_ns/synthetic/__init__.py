"""Ray traced images of the embedded open head: a synthetic multi-view capture and the true results of its edits.

Never imports nerfstudio.
"""
