"""``two-tower demo`` ends at a page on its own data. README.md runs it whole, without one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import polars as pl
import pytest

from conftest import remove_server, server_directory
from documents import REPOSITORY
from two_tower.server.embedded import Server
from two_tower.world import generate

ADDRESS = r"^(http://127\.0\.0\.1:(\d+)/)\?find=[0-9a-f-]{36}&replay=true$"


@pytest.mark.soak
def test_a_demo_ends_with_the_address_of_a_page_that_answers_until_it_is_interrupted(tmp_path: Path) -> None:
    world = generate(tmp_path, users=300, videos=300)
    stars = {"like": 5, "nope": 1, "skip": 3}
    reviews = pl.read_csv(world.decisions).select(
        "product_url",
        pl.col("user_id").alias("reviewer_id"),
        pl.col("decision").replace_strict(stars).alias("stars"),
        "created_at",
    )
    reviews.write_csv(tmp_path / "reviews.csv")
    home, log = server_directory("two-tower-demo-"), tmp_path / "log"
    environment = os.environ | {"TWO_TOWER_SERVER_PACKAGES": str(Server(REPOSITORY).provide_packages())}
    with socket.socket() as taken, log.open("wb") as output:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        files = ["--catalog", str(world.catalog), "--reviews", str(tmp_path / "reviews.csv")]
        command = [str(Path(sys.executable).parent / "two-tower"), "demo", "--ui", "--port", port, *files]
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
