"""Normalises addresses of products, if an operator wants that."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit, urlunsplit

import polars as pl

Normal = Callable[[pl.Series], pl.Series]
_TRACKING = re.compile(
    r"(utm_[a-z_]+|fbclid|gclid|gbraid|wbraid|dclid|yclid|msclkid|twclid|ttclid|igshid|mc_cid|mc_eid|_ga|_gl)(=.*)?",
    re.IGNORECASE | re.DOTALL,
)
"""Parameters that say where a visitor came from, and nothing about the product."""


def normal(address: str, *, lower_case: bool = False) -> str:
    """The normalised address of a product: https, the host in lower case, without a default port, a trailing slash, a
    fragment or tracking parameters. With ``lower_case``, all of it in lower case. Other texts stay as they are.
    """
    try:
        parts = urlsplit(address)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:  # a port that is not a number, an unclosed bracket
        return address
    if scheme not in ("http", "https") or not host:
        return address
    user, at, _ = parts.netloc.rpartition("@")
    host = f"[{host}]" if ":" in host else host
    place = f"{user}{at}{host}" + (f":{port}" if port not in (None, 80, 443) else "")
    query = "&".join(part for part in parts.query.split("&") if part and not _TRACKING.fullmatch(part))
    found = urlunsplit(("https", place, parts.path.rstrip("/"), query, ""))
    return found.lower() if lower_case else found


def normaliser(setting: str) -> Normal | None:
    """How the setting ``product_urls`` normalises a column of addresses; None if it keeps them as they are."""
    if setting == "as_written":
        return None
    lower_case = setting == "normalised_lower_case"

    def apply(cells: pl.Series) -> pl.Series:
        distinct = cells.drop_nulls().unique()
        meant = pl.Series([normal(address, lower_case=lower_case) for address in distinct], dtype=pl.String)
        return cells.replace_strict(distinct, meant, default=None, return_dtype=pl.String)

    return apply


def by_normal(addresses: pl.Series, normalise: Normal) -> pl.DataFrame:
    """``normal`` and ``stored``: the address under which the catalogue has each; of several, a normalised one."""
    frame = pl.DataFrame({"normal": normalise(addresses), "stored": addresses})
    ordered = frame.sort(pl.col("normal") != pl.col("stored"), "stored")
    return ordered.unique("normal", keep="first", maintain_order=True)
