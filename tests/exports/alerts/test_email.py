"""The e-mail sink, against a real SMTP server on the loopback that answers as it is told to."""

import asyncio
import email
import email.policy
import io
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from PIL import Image
from pydantic import SecretStr

from exports.alerts import Alert, Day, chart
from exports.alerts.email import compose, send
from pipelines.settings import EmailSink


class Post:
    """A mail server's behaviour: what it answers to each step, and what it has received."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.received: list[EmailMessage] = []
        self.accepted: list[list[str]] = []

    async def handle_MAIL(  # noqa: N802
        self, _: SMTP, __: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "mail" in self.answers:
            return str(self.answers["mail"])
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, _: SMTP, __: Session, envelope: Envelope, address: str, ___: list[str]
    ) -> str:
        answer = self.answers.get("rcpt", {}).get(address)
        if answer:
            return str(answer)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, _: Session, envelope: Envelope) -> str:  # noqa: N802
        if "data" in self.answers:
            return str(self.answers["data"])
        assert isinstance(envelope.content, bytes)
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.received.append(message)
        self.accepted.append(list(envelope.rcpt_tos))
        if self.answers.get("dies"):
            assert isinstance(server.transport, asyncio.Transport)
            server.transport.abort()
        return "250 taken"


Serve = Callable[..., tuple[Post, EmailSink]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(rcpt={…}, data="451 …", dies=True)` gives a running server and the settings for it."""
    controllers = []

    def start(
        recipients: tuple[str, ...] = ("ops@example.com", "boss@example.com"), **answers: Any
    ) -> tuple[Post, EmailSink]:
        post = Post(**answers)
        controller = Controller(post, hostname="127.0.0.1", port=free_port())
        controller.start()
        controllers.append(controller)
        return post, settings(controller.port, recipients)

    yield start
    for controller in controllers:
        controller.stop()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def settings(port: int, recipients: tuple[str, ...] = ("ops@example.com",)) -> EmailSink:
    return EmailSink(
        smtp_host="127.0.0.1",
        smtp_port=port,
        sender="Meterhouse <meter@example.com>",
        recipients=list(recipients),
    )


Rows = Callable[..., dict[str, Any]]


@pytest.fixture
def alert(alert_row: Rows) -> Alert:
    return Alert.of(alert_row(), "opened")


# ---- what arrives -------------------------------------------------------------------------------


def test_a_mail_arrives_once_with_everything_a_person_needs(serve: Serve, alert: Alert) -> None:
    post, sink = serve()

    answer = send(alert, sink)

    assert (answer.outcome, answer.detail) == ("sent", "250 taken")
    [message] = post.received
    assert post.accepted == [["ops@example.com", "boss@example.com"]]
    assert message["Subject"] == (
        '[Meterhouse] Key "Billing bot" in Acme spent 1,234.50 credits, 5.0 times the expected'
    )
    for kind in ("plain", "html"):
        body = message.get_body((kind,))
        assert body is not None
        text = body.get_content()
        for part in ("1,234.50", "246.90", "480.00", "2026-11-18 09:15", "gpt-5", "revoke it now"):
            assert part in text, (kind, part)


def test_a_budgets_own_recipients_are_told_too_each_once(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve(recipients=("ops@example.com",))
    stated = (
        "Ada <ada@acme.example>, ops@example.com; finance@acme.example bad@ b\u00fc@x\r\nBcc: x"
    )

    answer = send(Alert.of(alert_row(kind="budget", recipients=stated), "opened"), sink)

    assert answer.outcome == "sent"
    assert post.accepted == [["ops@example.com", "ada@acme.example", "finance@acme.example"]]
    assert post.received[0]["To"] == "ops@example.com, ada@acme.example, finance@acme.example"


def test_the_message_id_follows_from_what_is_told_alone(alert: Alert) -> None:
    first, again = (compose(alert, settings(25))["Message-ID"] for _ in range(2))

    assert first == again == "<alert_0123456789abcdef.opened.email@example.com>"


def test_later_mails_are_threaded_under_the_first(alert_row: Rows, alert: Alert) -> None:
    closed = compose(Alert.of(alert_row(), "closed"), settings(25))

    assert closed["In-Reply-To"] == compose(alert, settings(25))["Message-ID"]
    assert closed["Message-ID"] != closed["In-Reply-To"]


def test_a_possible_repetition_says_so(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve()

    send(Alert.of(alert_row(), "opened", may_repeat=True), sink)

    [message] = post.received
    assert message["Subject"].startswith("[may repeat] ")
    assert message["X-Meterhouse-May-Repeat"] == "yes"
    body = message.get_body(("plain",))
    assert body is not None
    assert "may repeat an earlier one" in body.get_content()


def test_a_name_can_not_write_headers_or_html(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve()
    name = "x\r\nBcc: thief@example.com\n<script>alert(1)</script>"

    send(Alert.of(alert_row(subject_name=name, message=name), "opened"), sink)

    [message] = post.received
    assert message["Bcc"] is None
    html = message.get_body(("html",))
    assert html is not None
    assert "<script>" not in html.get_content()


def test_a_line_that_is_one_dot_does_not_end_the_mail(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve()

    send(Alert.of(alert_row(cause="a\n.\nb"), "opened"), sink)

    [message] = post.received
    body = message.get_body(("plain",))
    assert body is not None
    assert "a\n.\nb" in body.get_content().replace("\r\n", "\n")


def test_names_in_any_script_arrive_as_they_are(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve()

    send(
        Alert.of(
            alert_row(
                subject_name="Überläufer 計測",
            ),
            "opened",
        ),
        sink,
    )

    assert "Überläufer 計測" in post.received[0]["Subject"]


def test_the_chart_is_in_the_mail_and_described_for_who_does_not_see_it(
    serve: Serve, alert_row: Rows
) -> None:
    post, sink = serve()
    first = datetime(2026, 10, 8).date()
    days = [
        Day(first + timedelta(days=number), Decimal(240), Decimal(247), Decimal(480))
        for number in range(42)
    ]

    send(Alert.of(alert_row(), "opened", days=days), sink)

    [message] = post.received
    [picture] = [part for part in message.walk() if part.get_content_type() == "image/png"]
    assert picture.get_content_disposition() == "inline"
    html = message.get_body(("html",))
    assert html is not None
    assert f'src="cid:{picture["Content-ID"].strip("<>")}"' in html.get_content()
    assert "Credits a day from 8 Oct to 18 Nov 2026" in html.get_content()
    with Image.open(io.BytesIO(picture.get_content())) as opened:
        assert opened.format == "PNG"
        assert opened.size == (2 * chart.WIDTH, 2 * chart.HEIGHT)
    assert len(message.as_bytes()) < 60_000


@pytest.mark.parametrize(
    "credits", [[0, 0], [0, 10**15], ["0.000000001", "0.000000002"], [5, 5, 5], [-3, 2]]
)
@pytest.mark.parametrize("kind", ["anomaly", "budget"])
def test_any_days_can_be_drawn(alert_row: Rows, credits: list[Any], kind: str) -> None:
    first = datetime(2026, 11, 1).date()
    days = [
        Day(first + timedelta(days=3 * number), Decimal(value), Decimal(1), Decimal(2))
        for number, value in enumerate(credits)
    ]

    picture = chart.png(Alert.of(alert_row(kind=kind), "opened", days=days))

    assert picture is not None
    assert picture.startswith(b"\x89PNG")


def test_a_digest_lists_its_alerts_and_marks_what_may_repeat(serve: Serve, alert_row: Rows) -> None:
    post, sink = serve()
    alerts = [
        Alert.of(
            alert_row(
                alert_id=f"alert_{number}",
                subject_name=f"Key {number}",
                highest_credits=Decimal(1000 + number),
            ),
            "opened",
            may_repeat=number == 24,
        )
        for number in range(25)
    ]

    assert send(Alert.digest(alerts), sink).outcome == "sent"

    [message] = post.received
    assert message["Subject"] == "[may repeat] [Meterhouse] 25 alerts in Acme"
    body = message.get_body(("plain",))
    assert body is not None
    text = body.get_content()
    assert "Key 24" in text  # the most credits come first
    assert "Key 4" not in text
    assert "and 5 more: meterhouse alerts --open --workspace ws_1" in text
    assert "1 of these alerts, marked below, may repeat" in text


@pytest.mark.parametrize("kind", ["anomaly", "drift", "woke", "budget", "exhaustion"])
@pytest.mark.parametrize("transition", ["opened", "escalated", "closed"])
@pytest.mark.parametrize("scope", ["key", "member", "model", "workspace"])
def test_every_alert_can_be_composed(
    kind: str, transition: str, scope: str, alert_row: Rows
) -> None:
    row = alert_row(kind=kind, scope=scope, expected=None, ratio=None, workspace_id=None)

    message = compose(Alert.of(row, transition), settings(25))  # type: ignore[arg-type]

    assert message.is_multipart()


# ---- who may send -------------------------------------------------------------------------------


IN_THE_CLEAR = pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")


def guarded(**options: Any) -> Iterator[tuple[Post, EmailSink]]:
    """A server that wants a name and a password, and settings that have them."""

    def authenticate(*args: Any) -> AuthResult:
        data = args[-1]
        is_right = (data.login, data.password) == (b"meter", b"right")
        return AuthResult(success=is_right, handled=False)

    post = Post()
    controller = Controller(
        post,
        hostname="127.0.0.1",
        port=free_port(),
        authenticator=authenticate,
        auth_required=True,
        **options,
    )
    controller.start()
    sink = settings(controller.port).model_copy(
        update={"username": "meter", "password": SecretStr("right")}
    )
    yield post, sink
    controller.stop()


@pytest.fixture
def plain_server() -> Iterator[tuple[Post, EmailSink]]:
    yield from guarded(auth_require_tls=False)


@pytest.fixture
def encrypted_server(tmp_path: Path) -> Iterator[tuple[Post, EmailSink]]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = [openssl, "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-days", "2"]
    command += ["-subj", "/CN=relay", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    yield from guarded(tls_context=context, require_starttls=True)


def test_where_encryption_is_required_a_server_without_it_gets_nothing(
    serve: Serve, alert: Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, sink = serve()
    monkeypatch.setattr("exports.alerts.email._is_local", lambda _: False)

    answer = send(alert, sink.model_copy(update={"tls": "required"}))

    assert (answer.outcome, post.received) == ("failed", [])
    assert "requires it" in answer.detail


@IN_THE_CLEAR
def test_it_logs_in_where_a_password_is_set(
    plain_server: tuple[Post, EmailSink], alert: Alert
) -> None:
    post, sink = plain_server

    assert send(alert, sink).outcome == "sent"
    assert len(post.received) == 1


@IN_THE_CLEAR
def test_a_wrong_password_is_refused_and_never_repeated_aloud(
    plain_server: tuple[Post, EmailSink], alert: Alert
) -> None:
    post, sink = plain_server
    wrong = sink.model_copy(update={"password": SecretStr("canary")})

    answer = send(alert, wrong)

    assert answer.outcome == "refused"
    assert "canary" not in answer.detail
    assert post.received == []


def test_a_relay_on_this_machine_may_have_made_its_own_certificate(
    encrypted_server: tuple[Post, EmailSink], alert: Alert
) -> None:
    post, sink = encrypted_server

    assert send(alert, sink).outcome == "sent"
    assert len(post.received) == 1


def test_elsewhere_a_certificate_nobody_vouches_for_is_not_trusted(
    encrypted_server: tuple[Post, EmailSink], alert: Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, sink = encrypted_server
    monkeypatch.setattr("exports.alerts.email._is_local", lambda _: False)

    answer = send(alert, sink)

    assert answer.outcome == "failed"
    assert "certificate" in answer.detail
    assert post.received == []


@IN_THE_CLEAR
def test_a_password_is_never_sent_in_the_clear(
    plain_server: tuple[Post, EmailSink], alert: Alert, monkeypatch: pytest.MonkeyPatch
) -> None:
    post, sink = plain_server
    monkeypatch.setattr("exports.alerts.email._is_local", lambda _: False)

    answer = send(alert, sink)

    assert answer.outcome == "failed"
    assert "no encryption" in answer.detail
    assert post.received == []


# ---- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "outcome"),
    [
        ({"data": "451 try later"}, "failed"),
        ({"data": "554 spam"}, "refused"),
        ({"mail": "450 busy"}, "failed"),
        ({"mail": "550 who are you"}, "refused"),
    ],
)
def test_the_answer_of_the_server_decides(
    serve: Serve, answers: dict[str, str], outcome: str, alert: Alert
) -> None:
    post, sink = serve(**answers)

    answer = send(alert, sink)

    assert answer.outcome == outcome
    assert next(iter(answers.values())) in answer.detail
    assert post.received == []


def test_a_refused_recipient_does_not_keep_the_mail_from_the_others(
    serve: Serve, alert: Alert
) -> None:
    post, sink = serve(rcpt={"boss@example.com": "550 no such box"})

    answer = send(alert, sink)

    assert answer.outcome == "sent_in_part"
    assert "boss@example.com: 550 no such box" in answer.detail
    assert post.accepted == [["ops@example.com"]]


@pytest.mark.parametrize(("second", "outcome"), [("550 gone", "refused"), ("450 full", "failed")])
def test_when_nobody_is_accepted_the_mildest_refusal_decides(
    serve: Serve, second: str, outcome: str, alert: Alert
) -> None:
    post, sink = serve(rcpt={"ops@example.com": "550 gone", "boss@example.com": second})

    assert send(alert, sink).outcome == outcome
    assert post.received == []


def test_a_server_that_dies_after_the_mail_leaves_it_unknown(serve: Serve, alert: Alert) -> None:
    post, sink = serve(dies=True)

    answer = send(alert, sink)

    assert answer.outcome == "unknown"
    assert len(post.received) == 1


def test_no_server_is_a_failure_that_says_where(alert: Alert) -> None:
    port = free_port()

    answer = send(alert, settings(port))

    assert (answer.outcome, answer.is_down) == ("failed", True)
    assert f"127.0.0.1:{port}" in answer.detail
