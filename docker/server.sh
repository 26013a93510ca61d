#!/usr/bin/env bash
# Creates the cluster at the first start, then becomes PostgreSQL. Arguments go to the server: `-c shared_buffers=4GB`.
set -euo pipefail
umask 077

if [[ ! -s $PGDATA/PG_VERSION ]]; then
  : "${POSTGRES_PASSWORD:?the first start needs a password for the superuser; docker/init-env.sh makes one}"
  # Under a temporary name until it is complete, so that an interrupted first start leaves no broken cluster.
  draft=$PGDATA.new
  rm -rf "$draft"
  mkdir -p "${PGDATA%/*}"
  initdb -D "$draft" -U postgres --encoding=UTF8 --locale=C.UTF-8 --data-checksums \
    --auth=scram-sha-256 --pwfile=<(printf '%s\n' "$POSTGRES_PASSWORD")
  # Without a server, so that pg_cron finds its database at the first start. Only the owner needs temporary objects there
  # (docs/security.md).
  postgres --single -D "$draft" template1 >/dev/null <<'SQL'
create database two_tower
revoke temporary on database two_tower from public
SQL
  echo "include '/etc/two-tower/postgresql.conf'" >>"$draft/postgresql.conf"
  rm -rf "$PGDATA"
  mv "$draft" "$PGDATA"
fi

# The server does not need the password, and anybody who may write PL/Python could read it.
exec env -u POSTGRES_PASSWORD postgres "$@"
