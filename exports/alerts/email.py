"""Tells an alert by e-mail: one message to all recipients, text and HTML with a chart, by any SMTP
server.

What a server answered is taken exactly: an answer that was never seen is `unknown`, never `failed`,
because the mail may be in somebody's inbox. `outbox.py` decides what follows from that.
"""

import contextlib
import re
import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import formatdate, parseaddr
from ipaddress import ip_address
from pathlib import Path

import jinja2

from exports.alerts import Alert, Answer, chart
from exports.alerts.words import (
    MOST_MEMBERS,
    advice,
    contribution,
    headline,
    numbers,
    repetition,
    title,
)
from pipelines.settings import EmailSink

TIMEOUT_SECONDS = 20
SUBJECT_LENGTH = 150
ADDRESS = re.compile(r"[!#-'*+\-./0-9=?A-Z^_`a-z{|}~]{1,64}@[A-Za-z0-9.\-]{1,253}")

TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=jinja2.select_autoescape(["html.j2"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def send(alert: Alert, settings: EmailSink) -> Answer:
    """Hands the alert to the SMTP server and says what it answered; no server can make it raise."""
    message = compose(alert, settings)
    try:
        session = _connect(settings)
    except smtplib.SMTPResponseException as error:
        return _answer(error.smtp_code, f"the server answered {_text(error)}")
    except (OSError, smtplib.SMTPException) as error:
        place = f"{settings.smtp_host}:{settings.smtp_port}"
        return Answer("failed", f"no connection to {place}: {error}", is_down=True)
    try:
        return _hand_over(session, message, settings.sender, recipients_of(alert, settings))
    finally:
        session.close()


def compose(alert: Alert, settings: EmailSink) -> EmailMessage:
    """The message. Its Message-ID follows from what is told: a repetition can be known for one."""
    _, address = parseaddr(settings.sender)
    domain = address.rpartition("@")[2] or "meterhouse.invalid"
    said = headline(alert)
    subject = ("[may repeat] " if alert.may_repeat else "") + f"[Meterhouse] {said}"
    message = EmailMessage(policy=SMTP)
    message["Subject"] = _one_line(subject)[:SUBJECT_LENGTH]
    message["From"] = settings.sender
    message["To"] = ", ".join(recipients_of(alert, settings))
    message["Date"] = formatdate()
    message["Message-ID"] = f"<{alert.alert_id}.{alert.step}.email@{domain}>"
    if alert.transition != "opened":
        opening = f"<{alert.alert_id}.opened.email@{domain}>"
        message["In-Reply-To"] = opening
        message["References"] = opening
    message["Auto-Submitted"] = "auto-generated"
    message["X-Meterhouse-Alert"] = alert.alert_id
    message["X-Meterhouse-Transition"] = alert.step
    if alert.may_repeat:
        message["X-Meterhouse-May-Repeat"] = "yes"
    picture = None if alert.kind == "digest" else chart.png(alert)
    words = {
        "alert": alert,
        "title": title(alert),
        "headline": said,
        "repetition": repetition(alert),
        "numbers": numbers(alert),
        "contribution": contribution,
        "members": alert.members[:MOST_MEMBERS],
        "names": lambda one: title(one).lower(),
        "advice": advice(alert),
        "chart_id": f"chart.{alert.alert_id}@{domain}" if picture else None,
        "chart_text": chart.described(alert) if picture else "",
    }
    text = TEMPLATES.get_template("email.txt.j2").render(words)
    html = TEMPLATES.get_template("email.html.j2").render(words)
    message.set_content(text, cte="quoted-printable")
    message.add_alternative(html, subtype="html", cte="quoted-printable")
    if picture:
        part = message.get_payload()[-1]  # type: ignore[index]
        part.add_related(  # type: ignore[union-attr]
            picture,
            "image",
            "png",
            cid=f"<{words['chart_id']}>",
            disposition="inline",
            filename="chart.png",
        )
    return message


def recipients_of(alert: Alert, settings: EmailSink) -> list[str]:
    """The settings' recipients and the budget's own, each once.

    A budget's are kept by hand: what is no plain address is left out, so that it can't fail the
    mail for everybody else.
    """
    parts = [part.strip("<>") for part in re.split(r"[\s,;]+", alert.recipients or "")]
    own = [part for part in parts if ADDRESS.fullmatch(part)]
    return list(dict.fromkeys([*settings.recipients, *own]))


def _connect(settings: EmailSink) -> smtplib.SMTP:
    """A session: greeted, encrypted where the server can, logged in where asked to."""
    host, port = settings.smtp_host, settings.smtp_port
    session = (
        smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=_context(host))
        if port == 465
        else smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
    )
    try:
        session.ehlo()
        is_private = port == 465 or _is_local(host)
        if port != 465 and session.has_extn("starttls"):
            session.starttls(context=_context(host))
            session.ehlo()
            is_private = True
        if settings.tls == "required" and not is_private:
            raise smtplib.SMTPException("it offers no encryption, and [alerts.email] requires it")
        if settings.username and settings.password:
            if not is_private:
                raise smtplib.SMTPException("it offers no encryption, so no password was sent")
            session.login(settings.username, settings.password.get_secret_value())
    except BaseException:
        session.close()
        raise
    return session


def _context(host: str) -> ssl.SSLContext:
    """Whom to trust: a relay on this machine has a self-made certificate as a rule, and no wire to
    listen on.
    """
    context = ssl.create_default_context()
    if _is_local(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _hand_over(
    session: smtplib.SMTP, message: EmailMessage, sender: str, recipients: list[str]
) -> Answer:
    """The envelope and the message, step by step: only after DATA can an answer be missing."""
    is_sent = False
    try:
        code, said = session.mail(parseaddr(sender)[1])
        if code >= 300:
            return _answer(code, f"the sender was refused: {code} {_decoded(said)}")
        refused = {}
        for recipient in recipients:
            code, said = session.rcpt(recipient)
            if code >= 300:
                refused[recipient] = (code, _decoded(said))
        listed = "; ".join(f"{who}: {code} {said}" for who, (code, said) in refused.items())
        if len(refused) == len(recipients):
            # one that may be accepted later is reason enough to try again
            code = min(code for code, _ in refused.values())
            return _answer(code, f"nobody was accepted: {listed}")
        code, said = session.docmd("DATA")
        if code != 354:
            return _answer(code, f"the message was refused: {code} {_decoded(said)}")
        session.send(re.sub(rb"(?m)^\.", b"..", message.as_bytes()) + b".\r\n")
        is_sent = True  # where it broke off before the last byte, there was no message yet
        code, said = session.getreply()
        if code >= 300:
            return _answer(code, f"the message was refused: {code} {_decoded(said)}")
    except (OSError, smtplib.SMTPException) as error:
        if is_sent:
            return Answer("unknown", f"the server fell silent after the message: {error}")
        return Answer("failed", f"the server fell silent: {error}")
    _say_goodbye(session)
    if refused:
        return Answer("sent_in_part", f"refused for {listed}")
    return Answer("sent", f"{code} {_decoded(said)}")


def _say_goodbye(session: smtplib.SMTP) -> None:
    """QUIT; the message is the server's already, whatever it makes of that."""
    with contextlib.suppress(OSError, smtplib.SMTPException):
        session.quit()


def _answer(code: int, detail: str) -> Answer:
    """4xx asks for another try, 5xx does not (RFC 5321, 4.2.1)."""
    return Answer("refused" if code >= 500 else "failed", detail)


def _text(error: smtplib.SMTPResponseException) -> str:
    return f"{error.smtp_code} {_decoded(error.smtp_error)}"


def _decoded(said: bytes | str) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else said


def _one_line(text: str) -> str:
    """No name may end a header and begin another."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _is_local(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
