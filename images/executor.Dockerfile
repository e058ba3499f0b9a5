# An executor with TensorRT-LLM, in a Ray worker. docs/images.md, docs/tensorrt-llm.md
# docker build -f images/executor.Dockerfile -t paretoserve/executor-trtllm .
#
# Two interpreters: TensorRT-LLM's own, /usr/bin/python3, runs the engine; /opt/ray runs Ray and the
# supervisor. They cannot be one: their pins of fastapi exclude each other.
ARG TENSORRT_LLM=1.2.1
FROM nvcr.io/nvidia/tensorrt-llm/release:${TENSORRT_LLM}
ARG PYTHON=3.12
# As root until all is installed, whoever NVIDIA's image runs as.
# hadolint ignore=DL3002
USER 0
# What KubeRay's commands and probes run. The distribution's release decides the versions.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends bash wget \
 && rm -rf /var/lib/apt/lists/*
COPY requirements-executor.txt images/ray.lock /src/
# NVIDIA's images constrain pip to what they were built with, which hashes do not go with.
ENV PIP_CONSTRAINT= \
    PIP_BREAK_SYSTEM_PACKAGES=1
# --without-pip: the distribution's ensurepip is a package of its own, and may be absent.
RUN /usr/bin/python3 -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '${PYTHON}' and f'Python ${PYTHON} is needed, as in images/ray.Dockerfile; this is {sys.version}')" \
 && /usr/bin/python3 -m pip install --no-cache-dir -r /src/requirements-executor.txt \
 && /usr/bin/python3 -m venv --without-pip /opt/ray \
 && /usr/bin/python3 -m pip --python /opt/ray/bin/python install --no-cache-dir --require-hashes --no-deps -r /src/ray.lock
COPY pyproject.toml README.md LICENSE /src/
COPY platform /src/platform
RUN /usr/bin/python3 -m pip install --no-cache-dir --no-deps /src \
 && /usr/bin/python3 -m pip --python /opt/ray/bin/python install --no-cache-dir --no-deps /src \
 && ln -s /opt/ray/bin/ray /opt/ray/bin/serve /opt/ray/bin/paretoserve /usr/local/bin/ \
 && /usr/bin/python3 -c "import paretoserve.app.executor" \
 && /opt/ray/bin/python -c "import paretoserve.app.serve.builder"
# /opt/ray/bin is not on PATH: whatever TensorRT-LLM starts as python3 shall be its own.
ENV RAY_DEFAULT_PYTHON_VERSION_MATCH_LEVEL=minor \
    RAY_USAGE_STATS_ENABLED=0 \
    HOME=/tmp \
    USER=paretoserve \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
CMD ["ray", "--help"]
