"""Tokens that end, and the page that gives them for cookies."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import SecretStr

from lakehouse_pipeline.feedserver.faults import Fault


@contextlib.contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """Yield the address at which *handler* answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def token_page(answer: Callable[[], tuple[int, str]]) -> Iterator[str]:
    """Serve *answer* (status and token) on the page that gives tokens for cookies."""
    asked: list[str] = []

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.path} {self.headers['Cookie']}")
            status, token = answer()
            body = json.dumps(token).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with serving(Page) as address:
        yield address
    assert set(asked) <= {"/quote_token/ sessionid=cookie; sessionid_sign=v3:signed"}


COOKIES = {"sessionid": SecretStr("cookie"), "sessionid_sign": SecretStr("v3:signed")}


def jwt(expires: datetime) -> str:
    claims = json.dumps({"user_id": 1, "exp": expires.timestamp()}).encode()
    return f"e30.{base64.urlsafe_b64encode(claims).rstrip(b'=').decode()}.c2ln"


@dataclass(kw_only=True)
class ExpiresOnWord(Fault):
    """Tokens named in ``expired`` are good no more; ``shown`` are those a connection has shown."""

    expired: set[str] = field(default_factory=set)
    shown: set[str] = field(default_factory=set)

    def refuses(self, token: str) -> bool:
        if token:  # the server may look before the client has shown one
            self.shown.add(token)
        return token in self.expired
