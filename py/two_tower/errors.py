"""Errors that a user can act on."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix. The command line prints the message and the hint, and no traceback."""

    exit_code = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class GateFailed(UserError):  # noqa: N818 - a verdict, not a fault
    """A quality gate said no."""

    exit_code = 3
