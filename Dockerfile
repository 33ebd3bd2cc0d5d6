# syntax=docker/dockerfile:1
# Two stages: the first builds a virtual environment from locked, hashed requirements, the second only runs it.
ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY requirements-otel.txt requirements-build.txt ./
RUN python -m venv /build \
 && /build/bin/pip install --no-deps --require-hashes -r requirements-build.txt \
 && python -m venv /opt/perpetuo \
 && /opt/perpetuo/bin/pip install --no-deps --require-hashes --only-binary :all: -r requirements-otel.txt
COPY pyproject.toml README.md LICENSE perpetuo.config.yaml ./
COPY alembic alembic
COPY perpetuo perpetuo
RUN /build/bin/python -m hatchling build -t wheel -d /dist \
 && /opt/perpetuo/bin/pip install --no-deps --no-index /dist/*.whl \
 && /opt/perpetuo/bin/python -m compileall -q /opt/perpetuo/lib \
 && /opt/perpetuo/bin/python -c "from perpetuo.entrypoints.http.admin.rendering import compile_all; compile_all()" \
 && /opt/perpetuo/bin/perpetuo --version

FROM python:${PYTHON}-slim
LABEL org.opencontainers.image.title="Perpetuo" org.opencontainers.image.licenses="Apache-2.0"
RUN useradd --system --uid 10001 --user-group --home-dir /home/perpetuo --create-home perpetuo
COPY --from=build /opt/perpetuo /opt/perpetuo
ENV PATH=/opt/perpetuo/bin:$PATH PYTHONUNBUFFERED=1 PERPETUO_CONTAINER=1 \
    PERPETUO_CONFIG_PATH=/etc/perpetuo/perpetuo.config.yaml
COPY perpetuo.config.yaml /etc/perpetuo/perpetuo.config.yaml
USER 10001:10001
WORKDIR /home/perpetuo
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["perpetuo", "healthcheck"]
ENTRYPOINT ["perpetuo"]
CMD ["serve"]
