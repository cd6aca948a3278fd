# docker build --file docker/gpu.Dockerfile --tag saliency-prompt:gpu ROOT_OF_THE_REPOSITORY
FROM python:3.11-slim-bookworm

# KubeRay's health checks call wget.
RUN apt-get update && apt-get install --yes --no-install-recommends wget procps \
    && rm -rf /var/lib/apt/lists/*
ENV PYTHONUNBUFFERED=1 RAY_USAGE_STATS_ENABLED=0

COPY constraints.txt /src/
# Torch's wheels bring CUDA, the node brings the driver.
RUN pip install --no-cache-dir --constraint /src/constraints.txt torch torchvision
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY . /src
RUN pip install --no-cache-dir --constraint /src/constraints.txt '/src[demo,report,train]' && rm -rf /src

RUN useradd --create-home --home-dir /worker --uid 1000 --user-group worker
USER 1000:1000
WORKDIR /worker
ENTRYPOINT ["saliency-prompt"]
