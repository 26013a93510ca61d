"""``two-tower demo``, from a generated world to a page on its own data. README.md runs it as a command."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest
from typer.testing import CliRunner

from conftest import remove_server, server_directory
from documents import REPOSITORY
from two_tower.cli.main import app
from two_tower.server.embedded import Server
from two_tower.world import generate

ADDRESS = r"^(http://127\.0\.0\.1:(\d+)/)\?find=[0-9a-f-]{36}&replay=true$"


def own_files(directory: Path) -> dict[str, Path]:
    """A catalogue and reviews, as somebody has them who shows the demo on their own."""
    world = generate(directory, users=300, videos=300)
    stars = {"like": 5, "nope": 1, "skip": 3}
    reviews = pl.read_csv(world.decisions).select(
        "product_url",
        pl.col("user_id").alias("reviewer_id"),
        pl.col("decision").replace_strict(stars).alias("stars"),
        "created_at",
    )
    reviews.write_csv(directory / "reviews.csv")
    return {"catalog": world.catalog, "reviews": directory / "reviews.csv"}


@pytest.mark.soak
def test_the_demo_measures_its_lists_on_likes_that_the_database_never_saw(
    new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(new_server(with_cluster=True).directory)
    monkeypatch.setattr("two_tower.world.generate", partial(generate, users=300, videos=300))
    done = CliRunner().invoke(app, ["demo", "--no-ui"])
    assert done.exit_code == 0, done.output
    for words in ("On likes that the database never saw", "EASE^R", "item-kNN", "popularity", "Somebody new likes 3"):
        assert words in done.stdout


@pytest.mark.soak
def test_demo_serves_its_page_until_interrupted(tmp_path: Path) -> None:
    files = own_files(tmp_path)
    home, log = server_directory("two-tower-demo-"), tmp_path / "log"
    environment = os.environ | {"TWO_TOWER_SERVER_PACKAGES": str(Server(REPOSITORY).provide_packages())}
    with socket.socket() as taken, log.open("wb") as output:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        options = [word for name, path in files.items() for word in (f"--{name}", str(path))]
        command = [str(Path(sys.executable).parent / "two-tower"), "demo", "--ui", "--port", port, *options]
        demo = subprocess.Popen(
            command, cwd=home, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            until = time.monotonic() + 240
            found = None
            while found is None and demo.poll() is None and time.monotonic() < until:
                time.sleep(0.2)
                found = re.search(ADDRESS, log.read_text(), re.MULTILINE)
            assert found, log.read_text()
            assert found[2] != port
            with urlopen(found[1], timeout=10) as answer:
                assert answer.status == 200
            os.killpg(demo.pid, signal.SIGINT)  # as a terminal does
            assert demo.wait(timeout=30) == 0, log.read_text()
            with pytest.raises(OSError, match="refused"):
                urlopen(found[1], timeout=10)
        finally:
            if demo.poll() is None:
                os.killpg(demo.pid, signal.SIGKILL)
                demo.wait()
            remove_server(Server(home))
    told = log.read_text()
    assert all(name in told for name in ("two-tower", "EASE^R", "item-kNN", "popularity", "♥"))
