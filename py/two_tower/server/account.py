"""The user that the embedded server runs as."""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from two_tower.errors import UserError
from two_tower.server.installation import REMEDY


@dataclass(frozen=True)
class Account:
    """The account of a server that root starts: PostgreSQL refuses to run as root."""

    name: str
    uid: int
    gid: int

    @classmethod
    def for_server(cls, data: Path) -> Account | None:
        """The owner of an existing cluster, else ``postgres``, else ``nobody``. None: the server runs as its caller."""
        if os.geteuid() != 0:
            return None
        if data.exists() and (owner := data.stat().st_uid):
            entry = pwd.getpwuid(owner)
            return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_name, entry.pw_uid, entry.pw_gid)
        raise UserError("root cannot run PostgreSQL, and there is no user `postgres` or `nobody` to run it", REMEDY)

    def can_enter(self, directory: Path) -> bool:
        """Whether this user may pass through and read the directory; asked of the kernel, which knows of ACLs."""
        try:
            script = 'cd "$1" && test -r .'
            return run_as(self, ["sh", "-c", script, "sh", directory], cwd=Path("/")).returncode == 0
        except OSError as error:
            raise UserError(f"cannot become user {self.name}: {error}") from error


def run_as(
    account: Account | None, command: list[str | Path], *, cwd: Path, env: dict[str, str] | None = None, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program as that user, with only a path from the caller's environment."""
    drop: dict[str, Any] = {"user": account.uid, "group": account.gid, "extra_groups": []} if account else {}
    base = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        command, cwd=cwd, env=base | (env or {}), input=text, capture_output=True, text=True, check=False, **drop
    )
