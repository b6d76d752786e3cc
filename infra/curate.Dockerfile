# CPU image: curation, captions, latents, reports, and a Prefect worker. Build from the top of the repository:
#   docker build -f infra/curate.Dockerfile -t stiv-curate:0.1.0 .
# PyAV carries its own FFmpeg and OpenCV is the headless build: no system codecs, no GUI libraries.
FROM python:3.11-slim-bookworm

ARG UID=1000
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu

# git: DVC asks it where the repository begins
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid "${UID}" --create-home stiv \
    && install --directory --owner stiv /workspace

ENV PIP_NO_CACHE_DIR=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONFAULTHANDLER=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    GX_ANALYTICS_ENABLED=false \
    ORT_DISABLE_TELEMETRY=1 \
    TORCH_FORCE_WEIGHTS_ONLY_LOAD=1

WORKDIR /workspace
COPY constraints.txt pyproject.toml ./
RUN pip install --no-deps --index-url "${TORCH_INDEX}" -c constraints.txt torch
COPY flows flows
COPY tasks tasks
COPY stiv_model stiv_model
# editable: a checkout mounted over /workspace is the code that runs, the same that DVC hashes
RUN pip install -c constraints.txt -e .

USER stiv
CMD ["stiv", "doctor"]
