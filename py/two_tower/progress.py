"""Callbacks by which long operations report their progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with the current step and the share that is done, from 0 to 1."""

Say = Callable[[str], None]
"""Called with a line for people, such as a warning or a step that is done."""
