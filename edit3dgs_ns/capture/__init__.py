"""The on-disk format of a capture (VHAP's export): layout, reading and checks.

Never imports nerfstudio.
"""
