"""`edit3dgs evaluate`: opens runs, renders them before and after their edit, and compares.

How images and expressions are compared, and how a report is written, is in `evaluation/`, which never imports nerfstudio.
"""
