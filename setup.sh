#!/usr/bin/env bash
# Installs what `make demo` and `make test` need, unless it is already there.
#
#   ./setup.sh            system packages, then .venv and the server's Python packages
#   ./setup.sh --test     also what only tests need: Node.js with npm, Chromium, PgBouncer, and PostgreSQL's headers with a compiler
#   ./setup.sh --system   only the system packages, with --test also those for tests; the only part that needs root
#
# PYTHON chooses the interpreter of .venv, TWO_TOWER_PG_BINDIR the PostgreSQL (its bin directory). pip reads its usual
# configuration: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and the rest choose where packages, torch included, come from.
# Output of the steps goes to .setup.log.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
umask 022 # if root starts the server, it runs as another user, and reads what is installed here

readonly LOG=$PWD/.setup.log STAMP=.venv/.setup-stamp
TESTS=0 # whether to install what only tests need
readonly EXTENSIONS=(plpython3u vector pg_cron plpgsql_check)
readonly CPU_TORCH=https://download.pytorch.org/whl/cpu

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

# step TITLE COMMAND...: runs it with its output in the log, and prints how long it took.
step() {
  local title=$1 start=$EPOCHREALTIME; shift
  printf 'setup: %-58s' "$title" >&2
  printf '\n== %s\n' "$title" >>"$LOG"
  if ! "$@" >>"$LOG" 2>&1 </dev/null; then
    printf ' failed\n' >&2
    tail -n 25 "$LOG" >&2
    die "\"$title\" failed; the whole output is in $LOG"
  fi
  awk -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf " %6.1f s\n", b - a }' >&2
}

# attempt COMMAND...: tries three times, because mirrors and package locks fail now and then.
attempt() {
  local pause
  for pause in 3 10 0; do
    "$@" && return
    ((pause)) && sleep "$pause"
  done
  return 1
}

# ---------------------------------------------------------------- what is installed

has_extension() { [[ -e $("$1" --sharedir)/extension/$2.control ]]; }

major_version() { "$1" --version | sed -E 's/[^0-9]*([0-9]+).*/\1/'; }

# pg_config of the supported server with the most extensions; the newest of equals, as in server/installation.py.
find_server() {
  local best='' best_rank=-1 config version rank extension
  for config in "${TWO_TOWER_PG_BINDIR:-/nonexistent}/pg_config" /usr/lib/postgresql/*/bin/pg_config \
    /usr/pgsql-*/bin/pg_config "$(command -v pg_config || true)"; do
    [[ -x $config ]] || continue
    version=$(major_version "$config")
    if [[ ! -x $("$config" --bindir)/initdb ]] || ((version < 15 || version > 18)); then continue; fi
    rank=$version
    for extension in plpython3u vector; do has_extension "$config" "$extension" && rank=$((rank + 100)); done
    [[ $config == "${TWO_TOWER_PG_BINDIR:-/nonexistent}"/* ]] && rank=$((rank + 1000))
    if ((rank > best_rank)); then best=$config best_rank=$rank; fi
  done
  printf '%s' "$best"
}

missing_extensions() {
  local extension
  for extension in "${EXTENSIONS[@]}"; do has_extension "$1" "$extension" || printf '%s ' "$extension"; done
}

# Minor version of the Python that plpython3 is linked with, such as 3.11.
server_python() {
  ldd "$("$1" --pkglibdir)/plpython3.so" 2>/dev/null | sed -nE '/libpython[0-9]/ { s/.*libpython([0-9]+\.[0-9]+)\.so.*/\1/p; q }'
}

find_python() {
  local candidate
  for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3}; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
}

# Packages that only tests need, by the program that each contains, and the headers of the server of the pg_config $1.
missing_for_tests() {
  local program package
  ((TESTS)) || return 0
  for program in node:nodejs npm chromium /usr/sbin/pgbouncer:pgbouncer cc:build-essential; do
    package=${program#*:} program=${program%:*}
    command -v "$program" >/dev/null || printf ' %s' "$package"
  done
  [[ -z $1 || -e $("$1" --includedir-server)/postgres.h ]] || printf ' postgresql-server-dev-%s' "$(major_version "$1")"
}

can_make_venv() { [[ -n $1 ]] && "$1" -c 'import ensurepip, venv' 2>/dev/null; }

inputs_hash() { cat setup.sh pyproject.toml plpython/requirements.txt | sha256sum | cut -d ' ' -f 1; }

# ---------------------------------------------------------------- system packages

as_root() {
  if ((EUID == 0)); then "$@"; else sudo -n -- "$@"; fi
}

can_be_root() { ((EUID == 0)) || sudo -n true 2>/dev/null; }

apt_update() { as_root apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 update; }

apt_install() {
  as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
}

has_package() { [[ -n $(apt-cache show "$1" 2>/dev/null) ]]; }

# Installing PostgreSQL on Debian creates and starts a cluster, which is not needed: this is switched off meanwhile.
install_server() {
  local drop_in=/etc/postgresql-common/createcluster.d/pg-two-tower.conf status=0
  as_root mkdir -p "${drop_in%/*}"
  as_root tee "$drop_in" >/dev/null <<<'create_main_cluster = false'
  attempt apt_install "$@" || status=$?
  as_root rm -f "$drop_in"
  return "$status"
}

# The newest PostgreSQL in the configured archives that has PL/Python.
packaged_server() {
  local version
  for version in 18 17 16 15; do
    if has_package "postgresql-$version" && has_package "postgresql-plpython3-$version"; then
      printf '%s' "$version"
      return
    fi
  done
}

# Builds pgvector from the source package of Debian 13, for releases without a binary of it. The lists of apt do not
# change: everything goes to a separate directory.
build_pgvector() {
  local config=$1 work keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  local -a apt
  [[ -r $keyring ]] || { echo "$keyring is missing: apt-get install debian-archive-keyring"; return 1; }
  work=$(mktemp -d)
  mkdir -p "$work"/{lists,cache}/partial "$work/source"
  echo "deb-src [signed-by=$keyring] http://deb.debian.org/debian trixie main" >"$work/sources.list"
  apt=(apt-get -o Acquire::Retries=3 -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=)
  # OPTFLAGS: no -march=native, so that an image made here also runs on an older processor.
  "${apt[@]}" update &&
    (cd "$work/source" && "${apt[@]}" source --download-only pgvector) &&
    tar -xf "$work"/source/pgvector_*.orig.tar.* -C "$work/source" --strip-components=1 &&
    make -C "$work/source" -j"$(nproc)" OPTFLAGS= with_llvm=no PG_CONFIG="$config" &&
    as_root make -C "$work/source" OPTFLAGS= with_llvm=no PG_CONFIG="$config" install &&
    rm -rf "$work"
}

# Exits unless this user may install packages; $1 is what is missing.
require_root() {
  local command="$PWD/setup.sh --system"
  can_be_root && return
  ((TESTS)) && command+=" --test"
  # A minimal Debian has no sudo.
  if command -v sudo >/dev/null; then command="sudo $command"; else command="su -c '$command'"; fi
  say "missing: $1"
  say "Installing it takes root, which this user is not. Run once:"
  say ""
  say "    $command"
  say ""
  say "then the same command as before."
  exit 1
}

require_apt() {
  command -v apt-get >/dev/null && return
  die "missing: $1. There is no apt-get here; install it with this system's package manager" \
    "(PostgreSQL 15 to 18 with its headers, PL/Python, pgvector, pg_cron, plpgsql_check) and run this again."
}

setup_system() {
  local config version missing python extension
  local -a packages=() for_tests=() wanted=("${EXTENSIONS[@]}")
  config=$(find_server)
  python=$(find_python)
  missing=''
  [[ -n $config ]] && missing=$(missing_extensions "$config") || missing="PostgreSQL 15 to 18, ${EXTENSIONS[*]}"
  can_make_venv "$python" || missing+=" python3-venv"
  missing+=$(missing_for_tests "$config")
  [[ -n $missing ]] || return 0

  require_apt "$missing"
  require_root "$missing"
  step "apt-get update" attempt apt_update

  can_make_venv "$python" || packages+=(python3 python3-venv)
  read -ra for_tests <<<"$(missing_for_tests "$config")"
  packages+=("${for_tests[@]}")
  if [[ -z $config ]]; then
    version=$(packaged_server)
    [[ -n $version ]] || die "no PostgreSQL 15 to 18 with PL/Python in the package archives of this system;" \
      "see https://wiki.postgresql.org/wiki/Apt for an archive that has them."
    packages+=("postgresql-$version")
    ((TESTS)) && packages+=("postgresql-server-dev-$version")
  else
    version=$(major_version "$config")
    read -ra wanted <<<"$(missing_extensions "$config")"
  fi
  for extension in "${wanted[@]}"; do
    case $extension in
      plpython3u) packages+=("postgresql-plpython3-$version") ;;
      pg_cron) packages+=("postgresql-$version-cron") ;;
      plpgsql_check) packages+=("postgresql-$version-plpgsql-check") ;;
      vector)
        if has_package "postgresql-$version-pgvector"; then
          packages+=("postgresql-$version-pgvector")
        else
          packages+=(build-essential "postgresql-server-dev-$version")
        fi
        ;;
    esac
  done
  step "apt-get install ${packages[*]}" install_server "${packages[@]}"

  config=$(find_server)
  if ! has_extension "$config" vector; then
    step "pgvector from Debian's source package" attempt build_pgvector "$config"
  fi
  missing=$(missing_extensions "$config")$(missing_for_tests "$config")
  [[ -z $missing ]] || die "still missing for $("$config" --version): $missing; see $LOG"
}

# ---------------------------------------------------------------- Python

# The index of CPU builds, if it is reachable: PyPI's torch for Linux comes with 3 GB of CUDA.
cpu_torch_index() {
  .venv/bin/python - "$CPU_TORCH" <<'PYTHON'
import sys
from urllib.request import urlopen

try:
    urlopen(f"{sys.argv[1]}/torch/", timeout=5).close()
    print(sys.argv[1])
except OSError:
    pass
PYTHON
}

make_venv() {
  [[ -x .venv/bin/python && -x .venv/bin/pip ]] && .venv/bin/python -c '' 2>/dev/null && return
  rm -rf .venv
  "$1" -m venv .venv
}

install_project() {
  local index
  index=$(cpu_torch_index)
  attempt .venv/bin/python -m pip install --disable-pip-version-check --no-input ${index:+--extra-index-url "$index"} \
    --editable '.[train,ui,dev]'
}

setup_python() {
  local python
  python=$(find_python)
  can_make_venv "$python" || die "no Python 3.11 or newer with venv and ensurepip; name one with PYTHON=/path/to/python3"
  rm -f "$STAMP" # a run that fails below is not finished
  step "virtual environment ($("$python" -V))" make_venv "$python"
  step "pip install pg-two-tower[train,ui,dev]" install_project
  step "numpy, onnxruntime for the server's Python $(server_python "$(find_server)")" .venv/bin/python -m two_tower.server.embedded
  inputs_hash >"$STAMP"
}

ready() {
  local config
  [[ -r $STAMP && $(<"$STAMP") == "$(inputs_hash)" && -x .venv/bin/two-tower ]] || return 1
  .venv/bin/python -c '' 2>/dev/null || return 1
  config=$(find_server)
  [[ -n $config && -z $(missing_extensions "$config")$(missing_for_tests "$config") ]] || return 1
  [[ -e .two-tower/site-packages-$(server_python "$config")/.complete ]]
}

SYSTEM=0
for argument; do
  case $argument in
    --test) TESTS=1 ;;
    --system) SYSTEM=1 ;;
    *) say "usage: ./setup.sh [--test] [--system]"; exit 2 ;;
  esac
done
if ((SYSTEM)); then
  # Root may run this for another user, whose next run also writes the log.
  touch "$LOG" && if ((EUID == 0)); then chown --reference=. "$LOG"; fi
  setup_system
  exit
fi
ready && exit
exec 9>.setup.lock && flock 9 # of two runs at once, the second waits and finds everything done
ready && exit
setup_system
setup_python
say "done; .venv/bin/two-tower is ready"
