"""The DMM/FANZA affiliate API v3, ``ItemList``, as a :class:`~two_tower.data.catalogue_api.Source`.

Sections are floors, written site/service/floor: ``FANZA/digital/videoa``. Times are those of Japan. Reference:
https://affiliate.dmm.com/api/v3/itemlist.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from two_tower.data.catalogue_api import GarbledError, Listing, Page, RefusedError, Span
from two_tower.errors import UserError
from two_tower.settings import Settings

DEFAULT_FLOOR = "FANZA/digital/videoa"
_ZONE = "+09:00"


def floor(text: str) -> str:
    """``videoa``, ``digital/videoa`` or ``FANZA/digital/videoa`` in full. Raises UserError for anything else."""
    parts = text.strip("/").split("/")
    if not 1 <= len(parts) <= 3 or not all(re.fullmatch(r"[\w.]+", part) for part in parts):
        raise UserError(f"{text!r} is not a floor", f"write site/service/floor, such as {DEFAULT_FLOOR}")
    return "/".join(DEFAULT_FLOOR.split("/")[: 3 - len(parts)] + parts)


@dataclass(frozen=True)
class Dmm:
    """The API with credentials. ``link_affiliate_id`` makes product addresses affiliate links of that id."""

    endpoint: str
    api_id: str = field(repr=False)
    affiliate_id: str = field(repr=False)
    link_affiliate_id: str | None = field(default=None, repr=False)
    name: str = "dmm"
    page_size: int = 100
    last_offset: int = 50_000

    @classmethod
    def from_settings(cls) -> Dmm:
        """The API with credentials from the environment. Raises UserError if any is missing."""
        settings = Settings()
        if settings.dmm_api_id is None or settings.dmm_affiliate_id is None:
            raise UserError(
                "the DMM API needs DMM_API_ID and DMM_AFFILIATE_ID",
                "set both in the environment or in .env; they have no options, since command lines are seen by others",
            )
        link = settings.dmm_link_affiliate_id
        return cls(
            settings.dmm_endpoint,
            settings.dmm_api_id.get_secret_value().strip(),
            settings.dmm_affiliate_id.get_secret_value().strip(),
            link.get_secret_value().strip() if link else None,
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        return self.api_id, self.affiliate_id

    def span(self, since: date | None, until: date | None) -> Span:
        return Span(f"{since}T00:00:00" if since else None, f"{until}T23:59:59" if until else None)

    def request(self, section: str, span: Span, offset: int) -> tuple[str, dict[str, str]]:
        site, service, floor = section.split("/")
        parameters = {
            "api_id": self.api_id,
            "affiliate_id": self.affiliate_id,
            "site": site,
            "service": service,
            "floor": floor,
            "hits": str(self.page_size),
            "offset": str(offset),
            "sort": "date",
            "output": "json",
        }
        if span.since:
            parameters["gte_date"] = span.since
        if span.until:
            parameters["lte_date"] = span.until
        return f"{self.endpoint.rstrip('/')}/ItemList", parameters

    def read(self, section: str, document: Any) -> Page:
        result = document.get("result") if isinstance(document, dict) else None
        if not isinstance(result, dict):
            raise GarbledError("an answer without a result")
        status = str(result.get("status", ""))
        if status.startswith("5"):
            raise GarbledError(f"status {status}")
        if status != "200":
            raise RefusedError(f"status {status or 'missing'}: {_text(result.get('message')) or 'no reason given'}")
        items, total = result.get("items"), result.get("total_count")
        items = [] if items is None else items
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise GarbledError("items that are no list of products")
        if not str(total).isdecimal():
            raise GarbledError("no count of all products")
        if str(result.get("result_count", len(items))) != str(len(items)):
            raise GarbledError(f"{len(items)} products where it says {result['result_count']}")
        listings = [self.listing(section, item) for item in items]
        released = [text for item in items if (text := _text(item.get("date")))]
        return Page(listings, int(total), released[-1].replace(" ", "T") if released else None)  # type: ignore[arg-type]

    def listing(self, section: str, item: dict[str, Any]) -> Listing:
        """A product as a row of a catalogue."""
        details = _mapping(item.get("iteminfo"))
        address, link = _text(item.get("URL")), _text(item.get("affiliateURL"))
        released = _text(item.get("date"))
        site, _, floor = section.split("/")
        row = {
            "product_url": address,
            "title": _text(item.get("title")),
            "tags": list(_names(details.get("genre"))),
            "performers": list(_names(details.get("actress"))),
            "maker": next(_names(details.get("maker")), None),
            "label": next(_names(details.get("label")), None),
            "series": next(_names(details.get("series")), None),
            "source": f"{site}/{floor}".lower(),
            "price": price(item.get("prices")),
            "duration_seconds": duration(item.get("volume")),
            "released_at": released + _ZONE if released and " " in released else released,
            "thumbnail_url": picture(item),
            "image_urls": samples(item),
        }
        known_as = tuple(text.split("&")[0] for text in (address, link) if text)
        if self.link_affiliate_id and link:
            row["product_url"] = re.sub(r"(?<=[?&]af_id=)[^&]*", self.link_affiliate_id, link)
        return Listing(_text(item.get("content_id")) or str(address), row, known_as if row["product_url"] else ())


def price(prices: Any) -> str | None:
    """Yen from ``300~`` (the cheapest of several), ``1,980`` or 300; if it is missing, of the cheapest delivery."""
    prices = _mapping(prices)
    deliveries = _mapping(prices.get("deliveries")).get("delivery")
    offers = [_mapping(offer).get("price") for offer in deliveries] if isinstance(deliveries, list) else []
    for candidates in ([prices.get("price")], offers, [prices.get("list_price")]):
        found = [re.search(r"\d[\d,]*(\.\d+)?", _text(value) or "") for value in candidates]
        amounts = [match.group().replace(",", "") for match in found if match]
        if amounts:
            return min(amounts, key=float)
    return None


def duration(volume: Any) -> str | None:
    """Seconds from minutes (``120``, ``120分``) or ``1:59:30``; otherwise None."""
    text = _text(volume) or ""
    if match := re.fullmatch(r"(\d+):(\d\d):(\d\d)", text):
        hours, minutes, seconds = map(int, match.groups())
        return str(hours * 3600 + minutes * 60 + seconds)
    match = re.fullmatch(r"(\d{1,5})\s*分?", text)
    return str(int(match.group(1)) * 60) if match else None


def picture(item: dict[str, Any]) -> str | None:
    """The largest picture of the package; if there is none, the first sample image."""
    package = _mapping(item.get("imageURL"))
    for size in ("large", "list", "small"):
        if found := _text(package.get(size)):
            return found
    return next(iter(samples(item)), None)


def samples(item: dict[str, Any]) -> list[str]:
    """Sample images, in the largest size that there is."""
    sizes = _mapping(item.get("sampleImageURL"))
    for size in ("sample_l", "sample_s"):
        images = _mapping(sizes.get(size)).get("image")
        found = [text for image in (images if isinstance(images, list) else [images]) if (text := _text(image))]
        if found:
            return found
    return []


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(entries: Any) -> Iterator[str]:
    """Names of genres, actresses and so on, from a list of objects or a single one."""
    entries = [entries] if isinstance(entries, dict) else entries if isinstance(entries, list) else []
    return iter([name for entry in entries if (name := _text(_mapping(entry).get("name")))])


def _text(value: Any) -> str | None:
    """Trimmed text that a database can store; None if there is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).replace("\0", "").encode("utf-8", "replace").decode().strip()
    return text or None
