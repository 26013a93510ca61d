# The command line. EXTRAS chooses its features: empty (migrate, import, recommend, status), `train`, `ui`.
FROM debian:trixie-slim AS dependencies

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/two-tower
ENV PATH=/opt/two-tower/bin:$PATH
WORKDIR /src
ARG EXTRAS=""
# PyPI's torch for Linux comes with 3 GB of CUDA. If this index cannot be reached, set it to an empty value.
ARG TORCH_INDEX=""
# Before the sources are copied, so that a change of them does not reinstall everything.
COPY docker/requirements.py pyproject.toml ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python requirements.py "$EXTRAS" >requirements.txt \
    && pip install ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} --requirement requirements.txt


FROM dependencies AS program

COPY LICENSE README.md ./
COPY migrations migrations
COPY plpython plpython
COPY sql sql
COPY py py
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps --prefix /program .


FROM debian:trixie-slim

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home --home-dir /work --shell /usr/sbin/nologin two-tower
COPY --from=dependencies /opt/two-tower /opt/two-tower
COPY --from=program /program /opt/two-tower
ENV PATH=/opt/two-tower/bin:$PATH \
    PYTHONUNBUFFERED=1
COPY docker/migrate.py /opt/two-tower/
USER two-tower
WORKDIR /work
VOLUME /work
ENTRYPOINT ["two-tower"]
