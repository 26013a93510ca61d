"""A local HTTP server that answers like the DMM affiliate API, including its faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from two_tower.data.catalogue_api import IngestOptions
from two_tower.data.dmm import Dmm

API_ID, AFFILIATE_ID, LINK_ID = "secretApiId77", "secret-990", "mylink-001"


def product(n: int, **changes: Any) -> dict[str, Any]:
    """A product in the API's format; the higher ``n``, the newer."""
    address = f"https://www.dmm.co.jp/digital/videoa/-/detail/=/cid=abc{n:05}/"
    released = datetime(2025, 1, 1, 10) + timedelta(hours=n)
    return {
        "service_code": "digital",
        "floor_code": "videoa",
        "content_id": f"abc{n:05}",
        "title": f"題名 {n}",
        "volume": "120",
        "URL": address,
        "affiliateURL": f"https://al.dmm.co.jp/?lurl={quote(address, safe='')}&af_id={AFFILIATE_ID}&ch=api",
        "imageURL": {"list": f"https://pics.example/{n}pt.jpg", "large": f"https://pics.example/{n}pl.jpg"},
        "sampleImageURL": {"sample_s": {"image": [f"https://pics.example/{n}-1.jpg"]}},
        "prices": {"price": "300~", "deliveries": {"delivery": [{"type": "stream", "price": "300"}]}},
        "date": f"{released:%Y-%m-%d %H:%M:%S}",
        "iteminfo": {
            "genre": [{"id": 1, "name": "海"}, {"id": 2 + n % 3, "name": f"genre {n % 3}"}],
            "actress": [{"id": n % 4, "name": f"女優 {n % 4}", "ruby": "x"}],
            "maker": [{"id": 1, "name": "Maker"}],
            "label": [{"id": 1, "name": "Label"}],
            "series": [{"id": n % 2, "name": f"Series {n % 2}"}],
        },
        **changes,
    }


Fault = Callable[["Api", BaseHTTPRequestHandler, dict[str, Any]], bool]
"""Given the correct answer, sends another one and returns true; or returns false, so that the correct one is sent."""


class Api:
    """The API: ``products``, newest first, in pages. Each request uses up one of ``faults``."""

    def __init__(self) -> None:
        self.products: list[dict[str, Any]] = []
        self.faults: list[Fault | None] = []
        self.always: Fault | None = None
        self.requests: list[dict[str, str]] = []
        self.times: list[float] = []
        self.last: dict[str, Any] = {}
        self.last_offset = 50_000
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                api.requests.append(asked)
                api.times.append(datetime.now(UTC).timestamp())
                document = api.answer(asked)
                fault = api.faults.pop(0) if api.faults else api.always
                if fault is None or not fault(api, self, document):
                    send(self, 200, json.dumps(document).encode())
                    api.last = document

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}/affiliate/v3/"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, asked: dict[str, str]) -> dict[str, Any]:
        parameters = {"request": {"parameters": asked}}
        if asked.get("api_id") != API_ID:
            return parameters | {"result": {"status": 400, "message": f"BAD REQUEST: api_id {asked.get('api_id')}"}}
        offset, hits = int(asked["offset"]), int(asked["hits"])
        if offset > self.last_offset or hits > 100:
            return parameters | {"result": {"status": 400, "message": "BAD REQUEST: offset"}}
        since, until = asked.get("gte_date", ""), asked.get("lte_date", "~")
        found = [p for p in self.products if since <= p["date"].replace(" ", "T") <= until]
        found = [p for p in found if p["floor_code"] == asked["floor"]]
        items = sorted(found, key=lambda p: p["date"], reverse=True)[offset - 1 : offset - 1 + hits]
        result = {
            "status": 200,
            "result_count": len(items),
            "total_count": len(found),
            "first_position": offset,
            "items": items,
        }
        return parameters | {"result": result}


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> bool:
    handler.send_response(status)
    for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)
    return True


def status(code: int, **headers: str) -> Fault:
    return lambda api, handler, document: send(handler, code, b"{}", headers)


def half_json(api: Api, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> bool:
    body = json.dumps(document).encode()
    return send(handler, 200, body[: len(body) // 2])


def hang_up(api: Api, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> bool:
    """Announces more bytes than it sends."""
    send(handler, 200, json.dumps(document).encode()[:100], {"Content-Length": "100000"})
    handler.close_connection = True
    return True


def page_of_html(api: Api, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> bool:
    return send(handler, 200, b"<html>Sorry, we are down for maintenance</html>")


def last_page_again(api: Api, handler: BaseHTTPRequestHandler, document: dict[str, Any]) -> bool:
    return send(handler, 200, json.dumps(api.last).encode())


def changed(**changes: Any) -> Fault:
    """The correct answer, with changed fields."""
    return lambda api, handler, document: send(
        handler, 200, json.dumps({**document, "result": {**document["result"], **changes}}).encode()
    )


def source(api: Api, link: str | None = None, **options: Any) -> Dmm:
    return Dmm(api.endpoint, API_ID, AFFILIATE_ID, link, **options)


FAST = IngestOptions(pause=0, attempts=4, first_wait=0.01)
