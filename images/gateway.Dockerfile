# A gateway: CPU only, neither Ray nor PyTorch. docs/images.md
# docker build -f images/gateway.Dockerfile -t paretoserve/gateway .
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm AS build
COPY images/gateway.lock /src/
RUN python -m venv /opt/paretoserve \
 && /opt/paretoserve/bin/pip install --no-cache-dir --require-hashes --no-deps -r /src/gateway.lock
COPY pyproject.toml README.md LICENSE /src/
COPY platform /src/platform
RUN /opt/paretoserve/bin/pip install --no-cache-dir --no-deps /src

FROM python:${PYTHON}-slim-bookworm AS gateway
COPY --from=build /opt/paretoserve /opt/paretoserve
# Whoever it runs as: no file is written but in /tmp, and no name is looked up for the user's id.
ENV PATH=/opt/paretoserve/bin:$PATH \
    HOME=/tmp \
    USER=paretoserve \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000 9000
ENTRYPOINT []
CMD ["paretoserve", "gateway", "--help"]

# With the demo model, of which a gateway reads the tokenizer: --target demo
FROM gateway AS demo
COPY deployments/local/models /models

FROM gateway
