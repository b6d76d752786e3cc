# GPU image: training, and every other stage. Build from the top of the repository:
#   docker build -f infra/train.Dockerfile -t stiv-train:0.1.0 .
# CUDA 13.0 is what torch 2.13.0 of PyPI is built for; its toolkit (devel) lets DeepSpeed compile its own kernels.
FROM ghcr.io/astral-sh/uv:0.8.22 AS uv

FROM nvidia/cuda:13.0.2-devel-ubuntu24.04

ARG UID=1001

COPY --from=uv /uv /usr/local/bin/uv

# git: DVC asks it where the repository begins; libaio-dev: training.offload nvme
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git libaio-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --non-unique --uid "${UID}" --create-home stiv \
    && install --directory --owner stiv /workspace

ENV UV_PYTHON_INSTALL_DIR=/opt/python \
    PATH=/opt/venv/bin:${PATH} \
    PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    ORT_DISABLE_TELEMETRY=1 \
    TORCH_FORCE_WEIGHTS_ONLY_LOAD=1

# Ubuntu 24.04 has no Python 3.11 of its own
RUN uv venv --seed --python 3.11 /opt/venv

WORKDIR /workspace
COPY constraints.txt pyproject.toml ./
RUN pip install -c constraints.txt torch
COPY flows flows
COPY tasks tasks
COPY stiv_model stiv_model
# editable: a checkout mounted over /workspace is the code that runs, the same that DVC hashes
RUN pip install -c constraints.txt -e .

USER stiv
CMD ["stiv", "doctor"]
