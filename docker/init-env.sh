#!/usr/bin/env bash
# Generates the secrets that docker-compose.yml needs: random, in .env, readable only by its owner. Existing ones stay.
#
#   docker/init-env.sh [FILE]
set -euo pipefail
umask 077

file=${1:-$(dirname "${BASH_SOURCE[0]}")/../.env}
touch "$file"
chmod 600 "$file"
[[ -z $(tail -c 1 "$file") ]] || echo >>"$file"
for name in POSTGRES_PASSWORD AUTHENTICATOR_PASSWORD PAGE_PASSWORD JWT_SECRET; do
  grep -q "^$name=." "$file" || printf '%s=%s\n' "$name" "$(od -An -N32 -v -tx1 /dev/urandom | tr -d ' \n')" >>"$file"
done
