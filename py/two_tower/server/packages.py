"""The packages of the server's Python: numpy and onnxruntime, as ``plpython/requirements.txt`` pins them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from two_tower.errors import UserError
from two_tower.paths import DATABASE_FILES


def are_complete(packages: Path) -> bool:
    """Whether an installation of the current requirements is complete."""
    marker = packages / ".complete"
    return marker.exists() and marker.read_text() == _requirements().read_text()


def _requirements() -> Path:
    return DATABASE_FILES / "plpython" / "requirements.txt"


def install_packages(target: Path, python: str) -> None:
    """pip install for a Python other than the running one: wheels only, into a directory of their own."""
    draft = target.with_suffix(".new")
    if draft.exists():
        shutil.rmtree(draft)
    command: list[str | Path] = [
        sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile",
        "--only-binary=:all:", "--python-version", python, "--target", draft, "-r", _requirements(),
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False, umask=0o022)
    if result.returncode:
        raise UserError(
            f"installing packages for the server's Python {python} failed: {result.stderr.strip()[-600:]}",
            "try it by hand: " + " ".join(str(word) for word in command).replace(str(draft), str(target)),
        )
    interpreter = sys.executable if python == f"{sys.version_info[0]}.{sys.version_info[1]}" else f"python{python}"
    if shutil.which(interpreter):  # otherwise the server compiles into a cache of its own
        subprocess.run([interpreter, "-m", "compileall", "-q", "-j0", draft], check=False, umask=0o022)
    (draft / ".complete").write_text(_requirements().read_text())
    (draft / ".complete").chmod(0o644)
    draft.chmod(0o755)
    if target.exists():
        shutil.rmtree(target)
    draft.rename(target)
