"""Kills a small edit at random moments, goes on, and compares what comes out with what comes out of one that was not killed.

work.py       the edit from training to video, as one process that says what it is doing
compare.py    what has to be the same in the end, and what a kill may not leave behind
__main__.py   chooses the moments, kills, counts: the key "kills" of outputs/trust.json
"""
