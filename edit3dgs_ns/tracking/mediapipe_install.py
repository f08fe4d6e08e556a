"""How to install MediaPipe beside Nerfstudio; no imports, for the doctor."""

MEDIAPIPE_INSTALL = "pip install --no-deps mediapipe==0.10.21 protobuf==4.25.9 absl-py flatbuffers"
"""Nerfstudio's metadata asks for protobuf 3.20.3 at most, with which MediaPipe's graphs do not start; it runs with 4.25.9."""
