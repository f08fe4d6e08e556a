"""The command `edit3dgs evaluate`: opens runs of Nerfstudio, renders them before and after their edit, and compares.

How pictures and expressions are compared, and how a report is written, is in `evaluation/`, which never imports nerfstudio.

    command.py      the command's options, and what it prints
    job.py          all of it in order, from the first check to the report
    runs.py         the runs: found, checked, opened
    subjects.py     what is asked for, checked, and each run with all that belongs to it
    views.py        what is rendered: the frames of each setting
    measure.py      figures of one run in one setting
    expression.py   whether expressions are kept
    truth.py        against the capture's images, and true edits of a synthetic capture
    whole.py        figures of a whole run
"""
