"""A mail server and an HTTP receiver on the loopback that fail as they are told to, and remember
what they took.

Each connection is served by the next of `plan`; when that is empty, all goes well. What a receiver
took whole is in `taken`, whatever it answered then: that is what a person would have read.
"""

import contextlib
import email
import email.policy
import socket
import ssl
import struct
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any


@dataclass(frozen=True)
class Fault:
    """What goes wrong at a step: an answer (`code`), a cut connection, or silence.

    Of HTTP the steps are `connect`, `body` (cut in the midst of it) and `answer`; of SMTP
    `connect`, `tls`, `ehlo`, `mail`, `rcpt` (the first recipient only), `data`, `body` and
    `answer`. At `answer` the message has been taken; `takes` says so of an HTTP answer.
    """

    step: str
    code: int = 0
    retry_after: str = ""
    is_silent: bool = False
    takes: bool = False


@dataclass
class Request:
    """What an HTTP receiver took."""

    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """One server; use it by `with`."""

    context: ssl.SSLContext | None = None
    plan: deque[Fault | None] = field(default_factory=deque)
    taken: list[Any] = field(default_factory=list)
    accepted: list[list[str]] = field(default_factory=list)  # of each mail, who gets it
    lock: threading.Lock = field(default_factory=threading.Lock)
    patience: float = 1.0  # for how long it is silent
    port: int = 0

    @contextmanager
    def running(self) -> Iterator["Receiver"]:
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        thread = threading.Thread(target=self._listen, args=(listener,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            thread.join(5)

    def _listen(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            fault = self.plan.popleft() if self.plan else None
            # by itself: one that is silent must not keep the next waiting
            threading.Thread(target=self._answer, args=(connection, fault), daemon=True).start()

    def _answer(self, connection: socket.socket, fault: Fault | None) -> None:
        with (
            connection,
            contextlib.suppress(OSError),
        ):  # the other side may be gone by now
            connection.settimeout(10)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.serve(connection, fault)

    def serve(self, connection: socket.socket, fault: Fault | None) -> None:
        raise NotImplementedError

    def fail(self, connection: socket.socket, fault: Fault) -> None:
        """Cuts the connection, at once or after a silence that no client waits for."""
        if fault.is_silent:
            threading.Event().wait(self.patience)
        # a reset, not a polite end
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()


class HttpReceiver(Receiver):
    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}/hooks/T0/B0/canary"

    def serve(self, connection: socket.socket, fault: Fault | None) -> None:
        if fault and fault.step == "connect":
            self.fail(connection, fault)
            return
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        with connection, connection.makefile("rb") as file:
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                line = file.readline()
                if not line:
                    return
                head += line
            _, *lines = head.decode("latin-1").strip().split("\r\n")
            headers = {name.title(): said for name, said in (line.split(": ", 1) for line in lines)}
            if fault and fault.step == "body":
                self.fail(connection, fault)
                return
            length = int(headers["Content-Length"])
            body = file.read(length)
            if len(body) == length and (fault is None or fault.takes or not fault.code):
                with self.lock:
                    self.taken.append(Request(headers, body))
            if fault and not fault.code:
                self.fail(connection, fault)
                return
            code = fault.code if fault else 200
            answer = f"HTTP/1.1 {code} Said\r\nContent-Length: 2\r\nConnection: close\r\n"
            if fault and fault.retry_after:
                answer += f"Retry-After: {fault.retry_after}\r\n"
            connection.sendall(f"{answer}\r\nok".encode())


class MailReceiver(Receiver):
    def serve(self, connection: socket.socket, fault: Fault | None) -> None:
        """A session, as far as the sink speaks SMTP."""
        step = fault.step if fault else ""

        def fails(now: str) -> bool:
            if fault is None or step != now:
                return False
            if fault.code:
                say(f"{fault.code} said so")
            else:
                self.fail(connection, fault)
            return True

        def say(text: str) -> None:
            connection.sendall(f"{text}\r\n".encode())

        if fails("connect"):
            return
        say("220 here")
        file = connection.makefile("rb")
        recipients: list[str] = []
        has_refused = False
        while True:
            line = file.readline().decode("latin-1").strip()
            verb = line[:4].upper()
            if not line:
                return
            if verb == "EHLO":
                if fails("ehlo"):
                    if fault and not fault.code:
                        return
                    continue
                can = "STARTTLS" if self.context or step == "tls" else "8BITMIME"
                say(f"250-here\r\n250 {can}")
                recipients = []
            elif verb == "STAR":
                if step == "tls":
                    say("220 go on")
                    connection.sendall(b"this is no handshake\r\n")
                    return
                assert self.context is not None
                say("220 go on")
                file.close()
                connection = self.context.wrap_socket(connection, server_side=True)
                file = connection.makefile("rb")
            elif verb == "MAIL":
                if not fails("mail"):
                    say("250 fine")
                elif fault and not fault.code:
                    return
            elif verb == "RCPT":
                if not has_refused and fails("rcpt"):
                    has_refused = True
                    if fault and not fault.code:
                        return
                    continue
                recipients.append(line.partition(":<")[2].rstrip(">"))
                say("250 fine")
            elif verb == "DATA":
                if fails("data"):
                    if fault and not fault.code:
                        return
                    continue
                say("354 go on")
                if fault and step == "body" and not fault.code:
                    file.readline()
                    self.fail(connection, fault)
                    return
                body = b""
                while not body.endswith(b"\r\n.\r\n"):
                    part = file.readline()
                    if not part:
                        return
                    body += part
                if fails("body"):  # refused after it was read
                    continue
                message = email.message_from_bytes(
                    body.removesuffix(b".\r\n").replace(b"\n..", b"\n."),
                    policy=email.policy.default,
                )
                assert isinstance(message, EmailMessage)
                with self.lock:
                    self.taken.append(message)
                    self.accepted.append(recipients)
                if fails("answer"):
                    return
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 fine")
