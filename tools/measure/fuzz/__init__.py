"""Files that nobody should have made, for every reader of the project: `make fuzz`.

hostile.py    strategies of hypothesis: damaged bytes, JSON, arrays, pickles, YAML
readers.py    the readers, each with a sound file that is spoilt, and what a sound result is
__main__.py   runs them, and writes what came of it to outputs/trust.json
"""
