"""One HTTP POST, and what is known afterwards of whether it was received.

The question is never "did it work" but "may it have been read": a connection that was never made,
or broke before the last byte of the body left, is `failed`; one that broke after it is `unknown`.
So are 502 and 504, which are answers of somebody in between who did not see the receiver's.
"""

import io
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import requests

from exports.alerts import Answer
from pipelines.calendar import parse_instant, utc_now

CONNECT_SECONDS, ANSWER_SECONDS = 10, 20
BUSY = {408, 425, 429, 500, 503}
LOST = {502, 504}
LONGEST_TEXT = 200


class Body(io.BytesIO):
    """The bytes of a request; `is_handed_over` once all of them have left."""

    is_handed_over = False

    def __len__(self) -> int:
        return len(self.getbuffer())

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes: they are asked for when those before have left."""
        found = super().read(size)
        self.is_handed_over = self.is_handed_over or not found
        return found


def post(url: str, content: bytes, headers: Mapping[str, str], secret: str = "") -> Answer:
    """Posts `content` and says what was answered; no server can make it raise. `secret`: what may
    not be said aloud, of the URL.
    """
    body = Body(content)
    try:
        with requests.Session() as session:
            answer = session.post(
                url,
                data=body,
                headers={"Content-Type": "application/json", **headers},
                timeout=(CONNECT_SECONDS, ANSWER_SECONDS),
                allow_redirects=False,
                stream=True,  # the status is the answer; the rest of a slow one is not waited for
            )
            status, said = answer.status_code, answer.headers
            text = _text(answer)
    except requests.RequestException as error:
        said_aloud = _without(str(error), url, secret)
        if body.is_handed_over:
            return Answer("unknown", f"it fell silent after the message: {said_aloud}")
        return Answer("failed", f"no connection: {said_aloud}", is_down=True)
    detail = f"{status} {_without(text, url, secret)}".strip()
    if 200 <= status < 300:
        return Answer("sent", detail)
    if status in LOST:
        return Answer("unknown", f"somebody in between answered {detail}")
    if status in BUSY:
        return Answer("failed", f"it answered {detail}", retry_after=_seconds(said))
    return Answer("refused", f"it answered {detail}")


def _text(answer: requests.Response) -> str:
    """The beginning of what it said, on one line; nothing, where that broke off."""
    try:
        first = next(answer.iter_content(LONGEST_TEXT), b"")
    except requests.RequestException:
        return ""
    return " ".join(first.decode("utf-8", "replace").split())


def _seconds(headers: Mapping[str, str]) -> float | None:
    """`Retry-After`: seconds, or an instant (RFC 9110, 10.2.3); None where it says neither."""
    stated = headers.get("Retry-After", "").strip()
    if stated.isdecimal():
        return float(stated)
    try:
        at = parsedate_to_datetime(stated)
    except ValueError:
        return None
    return max(0.0, (parse_instant(at.isoformat()) - utc_now()).total_seconds())


def _without(text: str, url: str, secret: str) -> str:
    """A text that does not tell the secret: errors name the address."""
    if not secret:
        return text
    parts = [secret, url, urlsplit(url).path]
    for part in parts:
        if len(part) > 1:
            text = text.replace(part, "…")
    return text
