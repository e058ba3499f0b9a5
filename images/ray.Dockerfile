# The Ray head, and workers that compute on the CPU (engines local and emulator). docs/images.md
# docker build -f images/ray.Dockerfile -t paretoserve/ray .
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS build
COPY images/ray.lock /src/
RUN python -m venv /opt/ray \
 && /opt/ray/bin/pip install --no-cache-dir --require-hashes --no-deps -r /src/ray.lock
# A build of PyTorch for CPUs only is much smaller: --build-arg TORCH_OPTIONS="--index-url URL"
ARG TORCH=torch==2.13.0
ARG TORCH_OPTIONS=
RUN /opt/ray/bin/pip install --no-cache-dir ${TORCH_OPTIONS} "${TORCH}"
COPY pyproject.toml README.md LICENSE /src/
COPY platform /src/platform
RUN /opt/ray/bin/pip install --no-cache-dir --no-deps /src

FROM python:${PYTHON}-slim-bookworm AS ray
# What KubeRay's probes run. Debian's release decides the version.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends wget \
 && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/ray /opt/ray
# KubeRay may run what it runs from a login shell, which sets PATH anew: `ray`, and `python` with Ray in
# the Job that cleans Redis.
RUN ln -s /opt/ray/bin/ray /opt/ray/bin/serve /opt/ray/bin/paretoserve /usr/local/bin/ \
 && echo "PATH=/opt/ray/bin:\$PATH" > /etc/profile.d/ray.sh
# Nodes of a cluster need the same Ray and the same minor version of Python, by default the same patch
# release too: that of the executors' image is its distribution's.
ENV PATH=/opt/ray/bin:$PATH \
    RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor \
    RAY_USAGE_STATS_ENABLED=0 \
    HOME=/tmp \
    USER=paretoserve \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
CMD ["ray", "--help"]

# With the demo model: --target demo
FROM ray AS demo
COPY deployments/local/models /models

FROM ray
