"""An S3 endpoint that gives one answer to everything."""

import http.server
from email.message import Message
from typing import NamedTuple


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    promised: int | None = None
    """The Content-Length, where it is not the body's."""


class Endpoint(http.server.ThreadingHTTPServer):
    """An endpoint with one answer to everything."""

    daemon_threads = True

    def __init__(self, answer: Answer) -> None:
        super().__init__(("127.0.0.1", 0), Always)
        self.answer = answer

    def reply(self, headers: Message) -> Answer:
        return self.answer


class Always(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Endpoint)
        status, body, promised = self.server.reply(self.headers)
        self.send_response(status)
        self.send_header("Content-Length", str(promised or len(body)))
        self.send_header("ETag", '"version"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def said(code: str) -> bytes:
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
