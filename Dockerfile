# syntax=docker/dockerfile:1
# What a bare system needs, written down. Two targets, of one set-up each:
#
#   docker build --target cpu  -t edit3dgs:cpu .      docker run --rm edit3dgs:cpu edit3dgs doctor
#   docker build --target cuda -t edit3dgs:cuda .     docker run --rm --gpus all edit3dgs:cuda edit3dgs doctor
#
# Captures, FLAME and results are mounted: -v $PWD/data:/data -v $PWD/outputs:/opt/edit3dgs/outputs
# -e FLAME_MODEL_PATH=/data/flame2023_Open.pkl. The viewer: -p 127.0.0.1:7007:7007, and ns-viewer with
# --viewer.websocket-host 0.0.0.0, since a container's own loopback is not the host's.

FROM debian:bookworm-slim AS cpu
# g++: sam2 and groundingdino are built from source. libegl1 libgl1 libx11-6: ns-export imports open3d. git, make, python: the set-up.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates g++ git libegl1 libgl1 libx11-6 make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/edit3dgs
COPY . .
RUN make setup && rm -rf /root/.cache/pip
ENV PATH=/opt/edit3dgs/.venv/bin:$PATH
CMD ["edit3dgs", "doctor"]

# CUDA 13.0 is that of the tested torch. The toolkit (nvcc) stays in the image: gsplat compiles its kernels at the first use.
FROM nvidia/cuda:13.0.0-devel-ubuntu24.04 AS cuda
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates g++ git libegl1 libgl1 libx11-6 make python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /opt/edit3dgs
COPY . .
RUN make setup && rm -rf /root/.cache/pip
ENV PATH=/opt/edit3dgs/.venv/bin:$PATH CUDA_HOME=/usr/local/cuda
CMD ["edit3dgs", "doctor"]
