"""Writing files, with one-sentence errors for a file that cannot be written."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from two_tower.errors import UserError

_HINTS = {
    errno.ENOSPC: "make room there, or write to another place",
    errno.EDQUOT: "make room there, or write to another place",
    errno.EROFS: "write to another place",
    errno.EACCES: "write to another place, or as somebody who may write there",
    errno.EPERM: "write to another place, or as somebody who may write there",
}


@contextmanager
def writing(path: Path | str) -> Iterator[None]:
    """Raises UserError if the body cannot write ``path`` or a file below it: because of a full or read-only disk, a
    missing right, or a directory in the place of a file or the other way round."""
    try:
        yield
    except OSError as error:
        raise unwritable(error, path) from error
    except Exception as error:
        # polars reports some errors of the disk as errors of the file.
        if type(error).__module__.startswith("polars") and " (os error " in str(error):
            code = int(str(error).rsplit(" (os error ", 1)[1].split(")")[0])
            raise unwritable(OSError(code, os.strerror(code)), path) from error
        raise


def encodable(text: str) -> str:
    """Text in which bytes of a file's name that are not UTF-8, which Python holds as surrogates, are escaped."""
    return text.encode("utf-8", "backslashreplace").decode()


def require_other(path: Path, source: Path | str) -> None:
    """Raises UserError if writing ``path`` would replace ``source``, which is read."""
    if path.exists() and Path(source).exists() and path.samefile(source):
        raise UserError(f"{path} would be replaced, and is the file that is read", "give one of them another name")


def unwritable(error: OSError, path: Path | str) -> UserError:
    """The UserError for an error that occurred while ``path`` was written; it names the error's own file, if any."""
    where = error.filename if isinstance(error.filename, str | Path) else path
    return UserError(f"cannot write {where}: {error.strerror or error}", _HINTS.get(error.errno or 0))
