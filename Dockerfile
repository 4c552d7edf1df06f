# progan in a container: `docker build -t progan .` for CPUs, with `--build-arg VARIANT=cuda` for NVIDIA's GPUs.
# Runs, and the packed sets of mounted pictures, go to /data: docker run --rm -v "$PWD:/data" progan train photos/
ARG VARIANT=cpu

FROM python:3.12-slim-bookworm AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src ./src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim-bookworm AS base
ARG TORCH=2.13.0
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 XDG_CACHE_HOME=/data/.cache
RUN useradd --create-home --uid 1000 progan && mkdir /data && chown progan:progan /data
COPY constraints.txt /tmp/constraints.txt

# PyTorch's own index has it without CUDA; the package index has it with CUDA's libraries. A driver is all that the machine needs.
FROM base AS cpu
RUN sed -i '/^torch==/d' /tmp/constraints.txt \
    && pip install --no-cache-dir "torch==${TORCH}" --index-url https://download.pytorch.org/whl/cpu

FROM base AS cuda
RUN sed -i '/^torch==/d' /tmp/constraints.txt && pip install --no-cache-dir "torch==${TORCH}"
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# hadolint ignore=DL3006
FROM ${VARIANT} AS final
COPY --from=wheel /wheels /wheels
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
RUN wheel=$(echo /wheels/progan-*.whl) \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt "${wheel}[video,metrics,report,onnx]"
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["progan"]
CMD ["--help"]
