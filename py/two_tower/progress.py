"""How long work says where it is: callers hand in what shows it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with what is being done and the share of it done, 0 to 1."""

Say = Callable[[str], None]
"""Called with a line for people, such as a warning or a step that is done."""
