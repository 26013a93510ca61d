"""What is released works without a checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import psycopg
import pytest

from conftest import NewDatabase

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
TRAINER = ("onnx", "onnxruntime", "optuna", "scipy", "torch")


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content of the wheel, as an installation has it."""
    made = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", str(ROOT)]
    subprocess.run(command, check=True, cwd=made)
    (wheel,) = made.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(made / "site-packages")
    return made / "site-packages"


def test_the_wheel_has_every_file_that_a_database_is_made_of(unpacked: Path) -> None:
    def files(root: Path) -> set[str]:
        kinds = ("migrations/*.sql", "migrations/*.py", "sql/**/*.sql", "plpython/*.py", "plpython/*.txt")
        return {str(path.relative_to(root)) for kind in kinds for path in root.glob(kind)}

    assert files(unpacked / "two_tower" / "_database") == files(ROOT)


def run(unpacked: Path, directory: Path, program: str, *arguments: str) -> None:
    """Runs a program with what the wheel has, as where none of the extras is installed."""
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
def test_serving_takes_no_package_of_the_trainer(unpacked: Path, tmp_path: Path, world_dsn: str) -> None:
    def two_tower(*arguments: str) -> None:
        run(unpacked, tmp_path, "from two_tower.cli.main import app; app()", *arguments, "--dsn", world_dsn)

    two_tower("refresh")
    two_tower("recommend", "--all", "--output", "recs.csv")
    two_tower("model", "list")
    two_tower("model", "publish", f"file://{tmp_path}/models")
    two_tower("sync-videos", "--skip-ingest", "--model", f"file://{tmp_path}/models")


def test_the_page_takes_no_package_of_the_trainer(unpacked: Path, tmp_path: Path) -> None:
    pages = "from two_tower.ui import data, freshness, models, recommendations, session, users"
    run(unpacked, tmp_path, pages)
