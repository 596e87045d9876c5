"""HTTP on the loopback interface: GET and HEAD of a few addresses. No address leads to a file."""

from __future__ import annotations

import errno
import json
import re
import secrets
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from cnnsearch.errors import RequestError
from cnnsearch.report.watch import rendering
from cnnsearch.report.watch.live import Live, Page

ADDRESS = "127.0.0.1"
PORT = 8420
"""The usual port, beyond those that Ray's dashboard tries, which begin at 8265."""

# Another site may point its own name at this machine in order to read what is served here (DNS rebinding); the Host
# header then holds that name. Any port is allowed: a tunnel may have another one at its near end.
_HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::\d{1,5})?", re.IGNORECASE | re.ASCII)
_HTML, _TEXT, _JSON = "text/html; charset=utf-8", "text/plain; charset=utf-8", "application/json"


class Server(ThreadingHTTPServer):
    """Serves the pages of a `Live`."""

    daemon_threads = True

    def __init__(self, live: Live, port: int) -> None:
        self.live = live
        super().__init__((ADDRESS, port), Handler)

    def server_bind(self) -> None:
        """Bind without looking up the name of the address, which may be slow and tells a name server about it."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore browsers that went away."""


def open_server(live: Live, port: int | None) -> Server:
    """Open a server on this port; without one on the usual port, or any free one. Raises RequestError."""
    try:
        return Server(live, PORT if port is None else port)
    except OSError as error:
        if port is None and error.errno == errno.EADDRINUSE:
            return Server(live, 0)
        reason = "it is taken" if error.errno == errno.EADDRINUSE else error.strerror
        raise RequestError(f"port {port or PORT} cannot be had: {reason}. Give another with --port") from None


class Handler(BaseHTTPRequestHandler):
    """Handles one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    """Seconds that a connection may be idle."""

    def parse_request(self) -> bool:
        """Refuse all methods but GET and HEAD before anything else looks at them."""
        if not super().parse_request():
            return False
        if self.command not in ("GET", "HEAD"):
            self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD.", Allow="GET, HEAD")
            return False
        return True

    def do_GET(self) -> None:
        """Answer a request, or say why not."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
            self._refuse(HTTPStatus.FORBIDDEN, "This page answers to 127.0.0.1 and localhost alone.")
            return
        path = self.path.partition("?")[0]
        address, slash, what = path.rpartition("/")
        page = self.server.live.pages.get(address + slash)
        answer = {"": self._page, "state": self._state, "report": self._report}.get(what)
        if page is None or answer is None:
            self._refuse(HTTPStatus.NOT_FOUND, "There is no such page.")
            return
        answer(page)

    def do_HEAD(self) -> None:
        """Answer like `do_GET`, without the body."""
        self.do_GET()

    def _page(self, page: Page) -> None:
        nonce = secrets.token_urlsafe(16)
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
            "style-src-attr 'unsafe-inline'; img-src data:; connect-src 'self'; "
            "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._send(rendering.page(page, page.looks(), nonce), _HTML, Content_Security_Policy=policy)

    def _state(self, page: Page) -> None:
        self._send(json.dumps({**rendering.state(page, page.looks()), "now": time.time()}), _JSON)

    def _report(self, page: Page) -> None:
        self._send(rendering.report(page, page.looks()), _HTML, Content_Security_Policy="default-src 'none'; sandbox")

    def _refuse(self, status: HTTPStatus, why: str, **headers: str) -> None:
        self.close_connection = True  # the rest of the request is not read
        self._send(f"{why}\n", _TEXT, status, Connection="close", **headers)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that the base class rejects, without its HTML page that repeats the request."""
        self._refuse(HTTPStatus(code), HTTPStatus(code).phrase)

    def _send(self, text: str, kind: str, status: HTTPStatus = HTTPStatus.OK, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Cross-Origin-Opener-Policy": "same-origin",
            **headers,
        }.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def version_string(self) -> str:
        """Do not reveal the versions of server and Python."""
        return "cnnsearch"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the terminal is for the address."""
