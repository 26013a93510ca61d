"""Prints what pyproject.toml requires, with the extras named by the argument: ``python requirements.py train,ui``."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = [extra for extra in sys.argv[1].split(",") if extra]
for requirement in sum((project["optional-dependencies"][extra] for extra in extras), project["dependencies"]):
    sys.stdout.write(requirement + "\n")
