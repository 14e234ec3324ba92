"""An object store for tests: moto's S3 server on the loopback, and in front of it a proxy that
makes go wrong what goes wrong on the way to a real one.
"""

import base64
import functools
import hashlib
import http.client
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from pipelines import object_store

Fault = Literal[
    "",  # none
    "500",
    "503",  # SlowDown
    "409",  # to a conditional write: another one is under way
    "reset",  # the connection ends before the request is heard
    "unheard",  # the request is not heard, and nothing answers
    "unanswered",  # it is done, and the connection ends before the answer
    "late",  # it is done, and the answer comes after the client has given up
    "torn",  # half of the answer's body comes
    "damaged",  # a byte of what is sent is another
]
ANSWERS = {"500": "InternalError", "503": "SlowDown", "409": "ConditionalRequestConflict"}
FAULTS: tuple[Fault, ...] = ("500", "503", "409", "reset", "unanswered", "torn", "damaged")
SLOW_FAULTS: tuple[Fault, ...] = ("unheard", "late")
PATIENCE_SECONDS = 0.6  # of a client that waits in vain: less than a minute, more than an answer


@dataclass(frozen=True)
class Asked:
    """A request on its way: `number` from 1."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class Proxy:
    """`choose`: the fault of each request. `seen`: how many requests met which fault."""

    port: int
    choose: Callable[[Asked], Fault] = lambda _: ""
    seen: Counter[str] = field(default_factory=Counter)
    asked: list[Asked] = field(default_factory=list)
    upstream: int = 0
    at_once: int = 0  # requests that are being answered now
    # moto looks first and writes then; a real store does both as one
    as_one: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def begin_again(self) -> None:
        """No fault, nothing asked, and an empty bucket named `bucket`."""
        self.choose = lambda _: ""
        # to delete a night's objects one by one takes as long as the night
        moto = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        moto.request("POST", "/moto-api/reset")
        assert moto.getresponse().status == 200
        moto.close()
        put(self, "s3://bucket", b"")
        self.asked.clear()
        self.seen.clear()

    def count(self, method: str, part: str = "") -> int:
        return sum(1 for asked in self.asked if asked.method == method and part in asked.path)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else head and body of an answer come 40 ms apart
    proxy: Proxy

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self) -> None:
        self.proxy.at_once += 1
        try:
            self._work()
        finally:
            self.proxy.at_once -= 1

    def _work(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        proxy = self.proxy
        headers = {name.lower(): text for name, text in self.headers.items()}
        asked = Asked(len(proxy.asked) + 1, self.command, self.path, headers)
        proxy.asked.append(asked)
        fault = proxy.choose(asked)
        if fault == "damaged" and not body:
            fault = "500"
        is_conditional = self.command == "PUT" and {"if-match", "if-none-match"} & headers.keys()
        if fault == "409" and not is_conditional:
            fault = "503"
        proxy.seen[fault] += 1
        if fault in ANSWERS:
            code = ANSWERS[fault]
            self._say(int(fault), {}, f"<Error><Code>{code}</Code></Error>".encode())
        elif fault in ("reset", "unheard"):
            self._hang_up(1.5 * PATIENCE_SECONDS if fault == "unheard" else 0)
        else:
            if fault == "damaged":
                body = bytes([body[0] ^ 1]) + body[1:]
            status, said, content = self._forward(body, headers)
            if fault in ("unanswered", "late"):
                self._hang_up(1.5 * PATIENCE_SECONDS if fault == "late" else 0)
            elif fault == "torn" and content and self.command != "HEAD":
                self._say(status, said, content[: len(content) // 2], len(content))
                self._hang_up(0)
            else:
                self._say(status, said, content)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _answer  # noqa: N815

    def _forward(
        self, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        stated = headers.get("x-amz-checksum-sha256")
        if stated and "-" not in stated and self.command == "PUT":
            found = base64.b64encode(hashlib.sha256(body).digest()).decode()
            if found != stated:  # moto takes what comes; a real store looks
                return 400, {}, b"<Error><Code>BadDigest</Code></Error>"
        with self.proxy.as_one:
            upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream, timeout=30)
            kept = {name: text for name, text in headers.items() if name != "host"}
            upstream.request(self.command, self.path, body, kept)
            reply = upstream.getresponse()
            content = reply.read()
            said = {name.lower(): text for name, text in reply.getheaders()}
            upstream.close()
        return reply.status, said, content

    def _say(
        self, status: int, said: Mapping[str, str], content: bytes, length: int | None = None
    ) -> None:
        self.send_response_only(status)
        for name, text in said.items():
            if name not in ("content-length", "connection", "transfer-encoding"):
                self.send_header(name, text)
        stated = said.get("content-length") if self.command == "HEAD" else None
        self.send_header("Content-Length", stated or str(length or len(content)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(OSError):
                self.wfile.write(content)

    def _hang_up(self, seconds: float) -> None:
        time.sleep(seconds)
        self.close_connection = True
        with suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, *_: Any) -> None:
        pass  # a client that hung up is no news


@contextmanager
def object_store_server() -> Iterator[Proxy]:
    """An empty store behind a proxy that does no harm yet."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    handler = type("Handler", (_Handler,), {})
    server = _Server(("127.0.0.1", 0), handler)
    proxy = Proxy(server.server_address[1], upstream=moto.get_host_and_port()[1])
    handler.proxy = proxy  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        moto.stop()


def environment(proxy: Proxy) -> dict[str, str]:
    """What a machine needs to know to reach it."""
    return {
        "AWS_ACCESS_KEY_ID": "AKIATESTONLY",
        "AWS_SECRET_ACCESS_KEY": "canary-of-a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL_S3": proxy.endpoint,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def be_quick(patch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts."""
    import botocore.endpoint

    patch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
    patch.setattr(object_store, "_pause", lambda _: None)


def be_impatient(patch: pytest.MonkeyPatch) -> None:
    """Little waiting for an answer, for faults that never answer."""
    patch.setattr(object_store, "READ_SECONDS", PATIENCE_SECONDS)


def give_up_on(patch: pytest.MonkeyPatch, name: str) -> None:
    """The client loses its patience with an object of this name as soon as the store has done what
    it asked and does not say so; it waits for all else as long as it takes. (A patience of half a
    second is lost with other answers too, where the machine is busy.)
    """
    from botocore.exceptions import ConnectionClosedError, ReadTimeoutError
    from botocore.httpsession import URLLib3Session

    send = URLLib3Session.send

    def impatient(session: Any, request: Any) -> Any:
        try:
            return send(session, request)
        except ConnectionClosedError as error:
            if not request.url.endswith(f"/{name}"):
                raise
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error

    patch.setattr(URLLib3Session, "send", impatient)


def put(proxy: Proxy, location: str, content: bytes) -> str:
    """An object, put by somebody else, past the proxy; its bucket is made first."""
    client = _direct(proxy)
    bucket, _, key = location.removeprefix("s3://").partition("/")
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket=bucket)
    return str(client.put_object(Bucket=bucket, Key=key, Body=content)["ETag"]) if key else ""


def contents(proxy: Proxy, location: str) -> dict[str, bytes]:
    """Everything under a prefix, by key below it."""
    client = _direct(proxy)
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
    return {
        key.removeprefix(prefix).lstrip("/"): client.get_object(Bucket=bucket, Key=key)[
            "Body"
        ].read()
        for key in keys
    }


def _direct(proxy: Proxy) -> Any:
    return _client_at(proxy.upstream)


@functools.cache
def _client_at(port: int) -> Any:
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="somebody",
        aws_secret_access_key="else",
        region_name="us-east-1",
    )
