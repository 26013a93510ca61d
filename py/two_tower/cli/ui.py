"""The verb ``two-tower ui``: replaces this process by Streamlit with ``app.py``."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from two_tower.cli.console import Dsn, manual, say
from two_tower.errors import UserError

app = typer.Typer()
APP = Path(__file__).parents[1] / "ui" / "app.py"
THEME = {
    "baseRadius": "0.5rem",
    "baseFontSize": 15,
    "headingFontSizes": '["1.6rem", "1.2rem", "1.02rem", "1rem", "1rem", "1rem"]',
    "headingFontWeights": "[650, 600, 600, 600, 600, 600]",
    "metricValueFontSize": "1.6rem",
    "light.primaryColor": "#2563eb",
    "light.backgroundColor": "#ffffff",
    "light.secondaryBackgroundColor": "#f5f6f8",
    "light.textColor": "#1b2430",
    "light.borderColor": "#e3e6ea",
    "dark.primaryColor": "#3b82f6",
    "dark.backgroundColor": "#11161f",
    "dark.secondaryBackgroundColor": "#1a2130",
    "dark.textColor": "#e6e9ef",
    "dark.borderColor": "#2c3444",
}
"""Without a base, so that the page follows the browser's light or dark scheme."""


@app.command(
    epilog=manual(
        "two-tower ui", "two-tower ui --port 9000 --read-only", exits="0 stopped, 1 it could not start, 2 wrong usage"
    )
)
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="TCP port.")] = 8501,
    address: Annotated[str, typer.Option(help="Where to listen; the page asks nobody for a password.")] = "127.0.0.1",
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Leave out everything that changes something: likes, activation.")
    ] = False,
    dsn: Dsn = None,
) -> None:
    """Serve a page to look at users, data, recommendations, models, what was shown and freshness.

    It reads as the role two_tower_viewer, to which the login of the DSN must be
    allowed to switch. Likes are written as the chosen user, and models are activated as
    the login itself, if it may. Anybody who can open the page sees everybody's
    history: listen on another address only behind a proxy with authentication.
    The browser fetches pictures, from hosts whose names can be resolved here.
    """
    from two_tower.server.connection import resolve_dsn

    if not installed():
        raise UserError("this needs streamlit, which is not installed", "pip install 'pg-two-tower[ui]'")
    os.environ |= environment(resolve_dsn(dsn), read_only)
    if dsn:
        os.environ["DATABASE_READ_URL"] = dsn  # the environment, or a file .env, may name a replica of another database
    _require_free(address, port)
    say(f"http://{address}:{port}")
    sys.stdout.flush()
    program = command(port, address)
    os.execv(program[0], program)  # noqa: S606


def _require_free(address: str, port: int) -> None:
    """Raises UserError unless a server can listen there."""
    try:
        socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET).close()
    except OSError as error:
        message = f"cannot listen on {address}, port {port}: {error.strerror or error}"
        raise UserError(message, "another --port, or --address") from error


def installed() -> bool:
    """Whether the page's package is there."""
    return find_spec("streamlit") is not None


def environment(dsn: str, read_only: bool = False) -> dict[str, str]:
    """Variables that tell the page its database; other users of the machine could read a command line."""
    return {"DATABASE_URL": dsn} | ({"TWO_TOWER_UI_READ_ONLY": "true"} if read_only else {})


def command(port: int, address: str) -> list[str]:
    """The program that serves the page, with its arguments."""
    options = {
        "server.address": address,
        "server.port": port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "server.showEmailPrompt": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "viewer",
        "client.showErrorDetails": "none",
        **{f"theme.{name}": value for name, value in THEME.items()},
    }
    arguments = [f"--{name}={value}" for name, value in options.items()]
    if local(address):
        # Protects against DNS rebinding: another site whose name resolves to this host must not reach the page.
        arguments += [f"--server.allowedHosts={host}" for host in ("localhost", "127.0.0.1", "::1")]
    return [sys.executable, "-m", "two_tower.ui", "run", str(APP), *arguments]


def local(address: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
