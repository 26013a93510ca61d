#!/usr/bin/env bash
# Tests the containers from end to end: images, secrets, everything up to a recommendation by curl, restarts, kills. It
# uses a compose project of its own, which is removed afterwards. Needs Docker with compose 2, curl and Python 3.
#
#   docker/test.sh                                           or: make docker-test
#   COMPOSE_FILE=docker-compose.yml:mine.yml docker/test.sh  with overrides of your own
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly images=(pg-two-tower-server pg-two-tower-cli pg-two-tower-trainer pg-two-tower-ui)
work=$(mktemp -d)
passed=0
export COMPOSE_PROJECT_NAME=pg-two-tower-test-$$ REST_PORT=0 UI_PORT=0

compose() { docker compose --env-file "$work/env" --progress quiet "$@"; }
trainer() { compose run --rm --quiet-pull --no-TTY trainer "$@" </dev/null; }
sql() { compose exec -T db psql -qAtX -v ON_ERROR_STOP=1 -c "$1"; }

finish() {
  local status=$?
  ((status == 0)) || { compose ps --all; compose logs --tail 40; } >&2
  compose --profile '*' down --volumes --remove-orphans
  rm -rf "$work"
  ((status == 0)) || echo "$passed passed, 1 failed"
}
trap finish EXIT

# holds WHAT COMMAND...: the command must succeed. It may be a function; its output is shown when it fails.
holds() {
  local what=$1; shift
  if ! "$@" >"$work/output" 2>&1; then
    echo "FAILED: $what" >&2
    cat "$work/output" >&2
    exit 1
  fi
  passed=$((passed + 1))
  echo "ok: $what"
}

fails() { ! "$@"; }

# soon SECONDS COMMAND...: tries until it succeeds.
soon() {
  local deadline=$((SECONDS + $1)); shift
  until "$@"; do
    ((SECONDS < deadline)) || return 1
    sleep 1
  done
}

# rest TOKEN PATH [CURL OPTIONS...]: the answer's body; fails unless its status is 2xx. `-` is no token.
rest() {
  local token=$1 path=$2; shift 2
  local -a header=()
  [[ $token == - ]] || header=(--header "Authorization: Bearer $token")
  curl --silent --show-error --fail-with-body --max-time 30 "${header[@]}" --header 'Content-Type: application/json' \
    "$@" "http://$(compose port rest 3000)/$path"
}

rows() { python3 -c 'import json, sys; print(len(json.load(sys.stdin)))'; }

# ---------------------------------------------------------------- secrets and images

secrets() {
  docker/init-env.sh "$work/env"
  cp "$work/env" "$work/again"
  docker/init-env.sh "$work/again"
  cmp "$work/env" "$work/again" && [[ $(stat -c %a "$work/env") == 600 ]]
}

no_secret_in_images() {
  local image
  for image in "${images[@]}"; do
    docker image inspect --format '{{json .Config}}' "$image" >"$work/image"
    docker history --no-trunc --format '{{.CreatedBy}}' "$image" >>"$work/image"
    ! sed 's/^[^=]*=//' "$work/env" | grep --fixed-strings --file=- "$work/image" || return 1
    ! grep -E '(PASSWORD|SECRET)=' "$work/image" || return 1
  done
}

nobody_is_root() {
  local container user
  for container in $(compose ps --all --quiet); do
    user=$(docker inspect --format '{{.Config.User}}' "$container")
    echo "$(docker inspect --format '{{.Name}}' "$container"): $user"
    [[ -n $user && $user != root && $user != 0 ]] || return 1
  done
}

image_user() { [[ $(docker run --rm --entrypoint id "$1" -u) != 0 ]]; }
refused() { { "${@:2}" 2>&1 || true; } | grep --fixed-strings "$1"; } # refused WORDS COMMAND...: its output contains these words
no_torch() { refused "No module named 'torch'" sql 'do $plpython$ import torch $plpython$ language plpython3u'; }
forgets_password() { compose exec -T db bash -c "! tr '\0' '\n' </proc/1/environ | grep PASSWORD"; }
healthy() { [[ $(docker inspect --format '{{.State.Health.Status}}' "$(compose ps --quiet "$1")") == healthy ]]; }
wrong_password() {
  refused "password authentication failed" \
    compose run --rm --no-TTY --env PGPASSWORD=wrong --entrypoint two-tower migrate status
}

holds "secrets are made once, for their owner alone" secrets
export JWT_SECRET; JWT_SECRET=$(sed -n 's/^JWT_SECRET=//p' "$work/env")
holds "the images build" compose --profile '*' build
holds "no secret is in an image" no_secret_in_images
for image in "${images[@]}"; do
  holds "$image does not run as root" image_user "$image"
done
holds "up: PostgreSQL, migrated, and PostgREST" compose up --detach
holds "no container runs as root" nobody_is_root
holds "the database turns healthy" soon 60 healthy db
holds "PostgREST answers" soon 60 rest - videos
holds "the server image has no torch" no_torch
holds "the server's process does not keep the superuser's password" forgets_password
holds "a wrong password is refused" wrong_password
holds "clients have no temporary objects" refused "permission denied to create temporary tables" \
  sql 'set role service_role; create temp table t ()'
holds "doctor has no complaint that fails" trainer doctor

# ---------------------------------------------------------------- the whole path

like() {
  rest "$token" user_video_decisions --data "$(sql "select json_agg(json_build_object('user_id', '$user', 'video_id', id,
    'decision_type', 'like')) from (select id from videos order by product_url limit 5) v")"
}
recommended() { rest "$token" rpc/recommend_videos --data '{"limit": 20}'; }
by_taste() { recommended >"$work/now" && grep '"reason":"taste"' "$work/now"; }
twenty() { [[ $(recommended | rows) == 20 ]]; }
same() { recommended >"$work/now" && cmp "$work/before" "$work/now"; }
similar() { [[ $(rest - rpc/similar_videos --data "{\"video_id\": \"$(sql 'select id from videos limit 1')\"}" | rows) == 20 ]]; }
scheduled() { [[ $(sql "select count(*) from cron.job_run_details where command like '%refresh%' and status = 'succeeded'") != 0 ]]; }
everybody() { [[ $(compose run --rm --no-TTY --entrypoint wc trainer -l recs.csv | cut -d ' ' -f 1) -gt 20 ]]; }

holds "a small world" compose run --rm --no-TTY --entrypoint python trainer \
  -c 'from two_tower.world import generate; generate("world", users=600, videos=800)'
holds "import catalog" trainer import catalog world/catalog.csv
holds "import decisions" trainer import decisions world/decisions.csv --create-users
holds "train" trainer train
holds "model activate" trainer model activate
holds "recommend --all" trainer recommend --all --limit 20 --output recs.csv
holds "recommendations for everybody lie in the volume" everybody

user=00000000-0000-4000-8000-000000000001
sql "insert into auth.users (id) values ('$user')"
token=$(docker/jwt.py "$user")
holds "nobody without a token" fails rest - rpc/recommend_videos --data '{}'
holds "nobody with a forged token" fails rest "$(JWT_SECRET=not-the-secret-but-long-enough-for-hs256 docker/jwt.py "$user")" \
  rpc/recommend_videos --data '{}'
holds "what is similar is for everybody" similar
holds "a newcomer gets twenty videos" twenty
holds "likes come in through PostgREST" like
holds "pg_cron has refreshed within two minutes, and taste decides" soon 120 by_taste
holds "pg_cron's run succeeded" soon 70 scheduled
recommended >"$work/before"

# ---------------------------------------------------------------- restarts and kills

back() { compose up --detach && soon 60 healthy db && soon 60 same; }
checkpointer() { sql "select pid from pg_stat_activity where backend_type = 'checkpointer'"; }
another_checkpointer() { [[ $(checkpointer) != "$killed" ]]; }
kill_a_process() {
  killed=$(checkpointer)
  compose exec -T db bash -c "kill -9 $killed"
  soon 60 another_checkpointer && soon 60 healthy db && soon 60 same
}

page_login() {
  compose exec -T ui python -c '
import psycopg
with psycopg.connect(__import__("os").environ["DATABASE_URL"], autocommit=True) as connection:
    connection.execute("set role two_tower_viewer")
    assert connection.execute("select count(*) from public.videos").fetchone()[0] == 800
    for forbidden in ("set role service_role", "set role authenticated", "delete from public.videos"):
        try:
            connection.execute(forbidden)
        except psycopg.errors.InsufficientPrivilege:
            continue
        raise SystemExit(f"may {forbidden}")
'
}

holds "up, with the page" compose --profile ui up --detach
holds "the page turns healthy" soon 90 healthy ui
holds "its login may read and nothing else" page_login
holds "restart: the same answer" compose restart db
holds "… from the data in the volume" back
holds "a process killed with -9: recovery, the same answer" kill_a_process
holds "the container killed with -9" compose kill --signal KILL db
holds "… recovery, the same answer" back
holds "down" compose down
holds "… and up: the same answer" back
holds "a migration on top of it changes nothing" compose up migrate

echo "$passed passed, 0 failed"
