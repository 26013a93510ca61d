"""``setup.sh`` as a user who may not install packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

SETUP = Path(__file__).parents[1] / "setup.sh"
NOBODY = 65534


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that other users can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.parametrize("options", [[], ["--test"], ["--system"], ["--test", "--system"]], ids=" ".join)
@pytest.mark.parametrize("sudo", [True, False], ids=["sudo", "no sudo"])
def test_a_user_without_root_is_told_the_command_to_run(open_directory: Path, options: list[str], sudo: bool) -> None:
    programs, checkout = open_directory / "programs", open_directory / "checkout"
    programs.mkdir()
    checkout.mkdir()
    for program in ("bash", "dirname", "sed", "cat", "ldd", "flock", "id"):
        (programs / program).symlink_to(str(shutil.which(program)))
    for program in ("apt-get", "sudo") if sudo else ("apt-get",):
        (programs / program).write_text("#!/bin/sh\nexit 1\n")
        (programs / program).chmod(0o755)
    shutil.copy(SETUP, checkout)
    checkout.chmod(0o777)
    # No interpreter of that name: python3-venv is missing.
    done = subprocess.run(
        [checkout / "setup.sh", *options],
        env={"PATH": str(programs), "PYTHON": "no-such-python"},
        capture_output=True,
        text=True,
        check=False,
        user=NOBODY if os.geteuid() == 0 else None,
    )
    assert done.returncode == 1, done.stderr
    assert "python3-venv" in done.stderr
    command = f"{checkout}/setup.sh --system" + (" --test" if "--test" in options else "")
    expected = f"sudo {command}" if sudo else f"su -c '{command}'"
    assert f"setup:     {expected}\n" in done.stderr


def test_an_option_that_setup_does_not_have_is_refused() -> None:
    done = subprocess.run([SETUP, "--tests"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: ./setup.sh [--test] [--system]" in done.stderr
