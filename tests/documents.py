"""Code blocks of Markdown documents, and a shell that runs them as a reader would.

An HTML comment right before a block says what to expect of it: ``<!-- not run: why -->``, ``<!-- prints: words -->``
(its output contains them; may be repeated), ``<!-- exits: 3 -->``. A document that begins with
``<!-- not run: why -->`` is not run.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

REPOSITORY = Path(__file__).parents[1]
RUNNABLE = ("bash", "sql", "python", "js")
NOT_RUNNABLE = ("text", "json", "yaml", "toml", "csv", "ini", "mermaid")
SECONDS = 600

_DIRECTIVE = re.compile(r"<!--\s*(not run|prints|exits):\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block. ``why_not`` is the reason for which it cannot be run here."""

    document: str
    line: int
    language: str
    text: str
    why_not: str | None = None
    prints: tuple[str, ...] = ()
    exits: int = 0

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@cache
def parse(path: Path) -> tuple[Token, ...]:
    """The document's tokens."""
    return tuple(MarkdownIt("commonmark").enable("table").parse(path.read_text(encoding="utf-8")))


def documents() -> list[Path]:
    """README.md first, since it builds the system that the others use; then the rest, by name."""
    first = REPOSITORY / "README.md"
    patterns = ("*.md", "docs/*.md", "docs/ja/*.md", "examples/*/*.md")
    others = (path for pattern in patterns for path in REPOSITORY.glob(pattern))
    return [first, *sorted(path for path in others if path != first)]


def blocks(path: Path) -> list[Block]:
    """Its fenced blocks, in order."""
    tokens = parse(path)
    name = str(path.relative_to(REPOSITORY))
    found: list[Block] = []
    whole = _why_not(tokens[0]) if tokens else None
    for before, token in zip((None, *tokens), tokens, strict=False):
        if token.type != "fence":
            continue
        said = _DIRECTIVE.findall(before.content) if before is not None and before.type == "html_block" else []
        why_not = [text for what, text in said if what == "not run"]
        exits = [int(text) for what, text in said if what == "exits"]
        assert token.map
        found.append(
            Block(
                document=name,
                line=token.map[0] + 1,
                language=token.info.strip(),
                text=token.content,
                why_not=" ".join(why_not[0].split()) if why_not else whole,
                prints=tuple(text for what, text in said if what == "prints"),
                exits=exits[0] if exits else 0,
            )
        )
    return found


def _why_not(first: Token) -> str | None:
    said = _DIRECTIVE.match(first.content) if first.type == "html_block" else None
    return " ".join(said[2].split()) if said and said[1] == "not run" else None


def prose(path: Path) -> list[tuple[int, str]]:
    """(line, text) of every piece of inline code."""
    return [
        (token.map[0] + 1, child.content)
        for token in parse(path)
        if token.type == "inline" and token.map
        for child in token.children or []
        if child.type == "code_inline"
    ]


@dataclass
class Shell:
    """A reader's terminal: the working directory and variables persist from block to block."""

    directory: Path
    environment: dict[str, str]
    _groups: list[int] = field(default_factory=list)

    def run(self, block: Block) -> str:
        """Runs a block as written, in a process group of its own; returns the output of both streams. AssertionError
        if it fails, or prints something else than the document promises."""
        state = self.directory / ".docs-state"
        script = self.directory / f".docs-block.{ {'python': 'py', 'js': 'mjs'}.get(block.language, block.language) }"
        script.write_text(block.text, encoding="utf-8")
        command = {
            "bash": f"source {script}",
            "sql": f"two-tower psql -- --no-psqlrc --quiet --set ON_ERROR_STOP=1 --file {script}",
            "python": f"python {script}",
            "js": f"node {script}",
        }[block.language]
        lines = [
            "set -aeuo pipefail",  # -a: later blocks see the variables of earlier ones, as in a terminal
            f"if [[ -e {state} ]]; then source {state}; fi",
            command,
            f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; }} > {state}",
        ]
        with (self.directory / ".docs-output").open("w+", encoding="utf-8") as output:
            process = subprocess.Popen(
                ["bash", "--noprofile", "--norc", "-c", "\n".join(lines)],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._groups.append(process.pid)
            try:
                code = process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                code = -1
                os.killpg(process.pid, signal.SIGKILL)
            output.seek(0)
            told = output.read()
        where = f"{block} ({block.language})\n{block.text}\n{told[-6000:]}"
        assert code == block.exits, f"exit {code}, not {block.exits}, in {where}"
        for words in block.prints:
            assert words in told, f"{words!r} is not printed by {where}"
        return told

    def close(self) -> None:
        """Ends processes that blocks left running in the background."""
        for group in self._groups:
            try:
                os.killpg(group, signal.SIGTERM)
            except ProcessLookupError:
                continue
