# PostgreSQL 17 with pgvector, PL/Python, pg_cron, and numpy and onnxruntime for PL/Python.
# All but the last two are from Debian. The image contains no torch, and no password.
FROM debian:trixie-slim AS packages

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*
COPY plpython/requirements.txt /tmp/
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /tmp/pip \
    && /tmp/pip/bin/pip install --only-binary=:all: --target /opt/plpython --requirement /tmp/requirements.txt


FROM debian:trixie-slim

# The user has the same id in every build, so that a volume outlives an image.
RUN groupadd --gid 999 postgres \
    && useradd --uid 999 --gid 999 --home-dir /var/lib/postgresql --shell /usr/sbin/nologin postgres \
    && install -d /etc/postgresql-common/createcluster.d \
    && echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.d/pg-two-tower.conf \
    && apt-get update \
    && apt-get install -y --no-install-recommends \
        postgresql-17 postgresql-17-cron postgresql-17-pgvector postgresql-plpython3-17 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o postgres -g postgres -m 700 /var/lib/postgresql \
    && install -d -o postgres -g postgres -m 775 /run/postgresql

COPY --from=packages /opt/plpython /opt/plpython
COPY docker/postgresql.conf docker/pg_hba.conf /etc/two-tower/
COPY --chmod=755 docker/server.sh /usr/local/bin/

ENV PATH=/usr/lib/postgresql/17/bin:$PATH \
    PGDATA=/var/lib/postgresql/17/data \
    PGDATABASE=two_tower \
    LC_ALL=C.UTF-8 \
    PYTHONPATH=/opt/plpython \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1

USER postgres
VOLUME /var/lib/postgresql
EXPOSE 5432
# Fast shutdown: end the connections, write a checkpoint. SIGTERM would wait for the clients to disconnect.
STOPSIGNAL SIGINT
# A query, because it also shows that the database exists and that a backend can start.
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["psql", "-qAtX", "-c", "select 1"]
ENTRYPOINT ["server.sh"]
