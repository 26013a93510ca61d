"""Released packages work without a checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import psycopg
import pytest

from conftest import NewDatabase, remove_server, server_directory
from two_tower.server.embedded import Server

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TRAINER = ("onnx", "onnxruntime", "optuna", "scipy", "torch")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel."""
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", str(ROOT)]
    subprocess.run(command, check=True, cwd=made)
    (found,) = made.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel, as in an installation."""
    made = tmp_path_factory.mktemp("unpacked") / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made)
    return made


def test_the_wheel_has_every_file_that_defines_the_database(unpacked: Path) -> None:
    def files(root: Path) -> set[str]:
        kinds = ("migrations/*.sql", "migrations/*.py", "sql/**/*.sql", "plpython/*.py", "plpython/*.txt")
        return {str(path.relative_to(root)) for kind in kinds for path in root.glob(kind)}

    assert files(unpacked / "two_tower" / "_database") == files(ROOT)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source distribution."""
    made = tmp_path_factory.mktemp("sdist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(made)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (found,) = made.glob("*.tar.gz")
    return found


@pytest.mark.soak
@pytest.mark.parametrize("made_of", ["wheel", "source distribution"])
def test_a_bare_installation_serves_without_a_checkout(
    made_of: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """``two-tower up`` and ``migrate`` in an empty directory. Dependencies come from this environment."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv" / "bin" / "python"
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    # A path in a .pth file is searched after the environment's own, and .pth files there, such as that of the checkout,
    # are not read.
    (site / "lent.pth").write_text(f"{Path(psycopg.__file__).parents[1]}\n")
    released = request.getfixturevalue("wheel" if made_of == "wheel" else "source")
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*command, "--no-build-isolation", str(released)], check=True, cwd=tmp_path)

    home = server_directory("two-tower-bare-")
    names = ("PYTHONPATH", "DATABASE_URL", "VIRTUAL_ENV")
    env = {name: value for name, value in os.environ.items() if name not in names}
    env["TWO_TOWER_SERVER_PACKAGES"] = str(Server(ROOT).provide_packages())

    def two_tower(*arguments: str) -> str:
        command = [str(python.parent / "two-tower"), *arguments]
        done = subprocess.run(command, cwd=home, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    where = "import two_tower; print(two_tower.__file__)"
    found = subprocess.run([str(python), "-c", where], cwd=home, env=env, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(site)
    try:
        dsn = two_tower("up").strip()
        two_tower("migrate")
        with psycopg.connect(dsn) as connection:
            assert connection.execute("select two_tower.active_version()").fetchone() == (None,)
        two_tower("model", "list")
        two_tower("down")
    finally:
        remove_server(Server(home))


def test_the_source_distribution_has_all_files_of_the_wheel(source: Path) -> None:
    with tarfile.open(source) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for needed in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "examples/evaluate.ipynb", "setup.sh"):
        assert needed in names
    for kind in ("migrations/*.sql", "sql/**/*.sql", "plpython/*.py", "py/two_tower/**/*.py"):
        assert {str(path.relative_to(ROOT)) for path in ROOT.glob(kind)} <= names
    assert not [name for name in names if name.startswith((".venv", ".two-tower", "build", "dist"))]


def test_a_tag_is_the_version_that_is_released() -> None:
    """The release workflow's check of a tag, for the next tag."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def run(unpacked: Path, directory: Path, program: str, *arguments: str) -> None:
    """Runs a program with the content of the wheel, as if no extras were installed."""
    without = f"import sys; sys.modules.update(dict.fromkeys({TRAINER!r})); "
    command = [sys.executable, "-P", "-c", without + program, *arguments]
    env = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(command, check=False, cwd=directory, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"


def test_an_installed_wheel_migrates_up_and_down(unpacked: Path, tmp_path: Path, database: NewDatabase) -> None:
    dsn = database(empty=True)

    def two_tower(*arguments: str) -> None:
        run(unpacked, tmp_path, "from two_tower.cli.main import app; app()", *arguments, "--dsn", dsn)

    def routines() -> int:
        with psycopg.connect(dsn) as connection:
            row = connection.execute("select count(*) from pg_proc where proname = 'recommend_videos'").fetchone()
        return int(row[0]) if row else 0

    two_tower("migrate")
    assert routines() == 1
    two_tower("migrate", "--to", "0")
    assert routines() == 0


@pytest.mark.soak
def test_serving_needs_no_package_of_the_trainer(unpacked: Path, tmp_path: Path, world_dsn: str) -> None:
    def two_tower(*arguments: str) -> None:
        run(unpacked, tmp_path, "from two_tower.cli.main import app; app()", *arguments, "--dsn", world_dsn)

    two_tower("refresh")
    two_tower("recommend", "--all", "--output", "recs.csv")
    two_tower("model", "list")
    two_tower("model", "publish", f"file://{tmp_path}/models")
    two_tower("sync-videos", "--skip-ingest", "--model", f"file://{tmp_path}/models")


def test_the_page_needs_no_package_of_the_trainer(unpacked: Path, tmp_path: Path) -> None:
    pages = "from two_tower.ui import data, freshness, models, recommendations, session, shown, users"
    run(unpacked, tmp_path, pages)
