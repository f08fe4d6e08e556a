"""The demo: captures a head, trains its avatar, edits it with a prompt, and renders before and after.

`settings` says what is made and where, `job` makes it in steps that are kept, `result` renders what there is to see.
"""
