"""Objects in an object store: listed, fetched whole or not at all, put whole or not at all, and put
only where nobody else was faster.

boto3 with its own credentials and profiles, and AWS_ENDPOINT_URL_S3 for any store that speaks S3
(contract, "Settings"). What goes wrong on the way is tried again here (facts/faults.md, 13): 500,
503, timeouts and torn bodies. What a log or a table means does not belong here.
"""

import base64
import functools
import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

SCHEME = "s3://"
ATTEMPTS = 6
CONNECT_SECONDS = 10
READ_SECONDS = 60.0
THREADS = 8
CHUNK = 4 * 2**20
PART_BYTES = 32 * 2**20  # what is larger goes up in parts
TOKEN = "meterhouse-write"  # metadata: which writing of it an object is
ANYTHING = "*"
HIDDEN = ("._", (".tmp", ".part"))  # how no object's name begins, and how it ends (contract)


class ObjectStoreError(RuntimeError):
    """The object store can't be read or written; the text says why and what to do."""


class Changed(ObjectStoreError):
    """The object is no longer the one that was asked for, or is gone."""


class Taken(ObjectStoreError):
    """Somebody else has written there first."""


def is_remote(location: str) -> bool:
    return location.startswith(SCHEME)


@dataclass(frozen=True)
class RemoteObject:
    """An object as a listing shows it. `etag`: another content has another one."""

    bucket: "Bucket"
    key: str
    size: int
    etag: str
    modified_at: datetime

    @property
    def location(self) -> str:
        return self.bucket.location_of(self.key)

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]

    def fetch(self, target: Path) -> None:
        """Its bytes as a file. Raises Changed where it is no longer as it was listed."""
        self.bucket.fetch(self.key, target, self.size, self.etag)


@dataclass(frozen=True)
class Found:
    """A small object, read whole; `age_seconds` by the store's own clock."""

    content: bytes
    etag: str
    age_seconds: float


class Bucket:
    """A bucket, or what lies under a prefix of it; keys are relative to that."""

    def __init__(self, location: str) -> None:
        self.name, _, prefix = location.removeprefix(SCHEME).partition("/")
        self.base = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        if not is_remote(location) or not self.name:
            raise ObjectStoreError(f"'{location}' is no place: write it as s3://bucket/prefix.")

    def __str__(self) -> str:
        return f"{SCHEME}{self.name}/{self.base}".rstrip("/")

    def location_of(self, key: str) -> str:
        return f"{SCHEME}{self.name}/{self.base}{key}"

    def _call(self, name: str, key: str | None = None, **parameters: Any) -> dict[str, Any]:
        """One request, tried again by botocore. Raises what botocore raises."""
        if key is not None:
            parameters["Key"] = self.base + key
        reply: dict[str, Any] = getattr(_client(), name)(Bucket=self.name, **parameters)
        return reply

    # ---- reading ----------------------------------------------------------------------------

    def objects(self, prefix: str = "") -> Iterator[RemoteObject]:
        """Every object whose key begins so, in the order of their keys: page by page, and a page
        that fails is asked for again, not the pages before it.
        """
        token: dict[str, str] = {}
        while True:
            with _explained(str(self)):
                page = self._call("list_objects_v2", Prefix=self.base + prefix, **token)
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(self.base)
                yield RemoteObject(self, key, item["Size"], item["ETag"], item["LastModified"])
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def get(self, key: str) -> Found | None:
        """A small object, whole; None where there is none."""

        def attempt() -> Found | None:
            try:
                reply = self._call("get_object", key)
            except _client_error() as error:
                if _code(error) in ABSENT:
                    return None
                raise
            content = reply["Body"].read()
            if len(content) != reply["ContentLength"]:
                raise _Torn(key)
            stated = reply["ResponseMetadata"]["HTTPHeaders"].get("date")
            now = parsedate_to_datetime(stated) if stated else reply["LastModified"]
            age = (now - reply["LastModified"]).total_seconds()
            return Found(content, reply["ETag"], age)

        with _explained(self.location_of(key)):
            return _patiently(attempt)

    def head(self, key: str) -> Mapping[str, Any] | None:
        """What the store says of an object; None where there is none."""
        with _explained(self.location_of(key)):
            return self._head(key)

    def _head(self, key: str) -> Mapping[str, Any] | None:
        try:
            return self._call("head_object", key)
        except _client_error() as error:
            if _code(error) in ABSENT:
                return None
            raise

    def fetch(self, key: str, target: Path, size: int, etag: str = "") -> None:
        """An object's bytes as a file, whole, or no file. A torn download goes on where it was
        torn, as long as the object is the same.

        Raises Changed where it has another `etag`, or is gone.
        """
        same = {"IfMatch": etag} if etag else {}

        def attempt() -> None:
            done = target.stat().st_size if target.exists() else 0
            if done >= size > 0:
                target.unlink()
                done = 0
            part = {"Range": f"bytes={done}-"} if done and etag else {}
            reply = self._call("get_object", key, **same, **part)
            is_rest = bool(part) and reply["ResponseMetadata"]["HTTPStatusCode"] == 206
            with target.open("ab" if is_rest else "wb") as file:
                for chunk in reply["Body"].iter_chunks(CHUNK):
                    file.write(chunk)
                if file.tell() != size:
                    raise _Torn(key)

        target.unlink(missing_ok=True)
        try:
            with _explained(self.location_of(key)):
                _patiently(attempt)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    # ---- writing ----------------------------------------------------------------------------

    def put(
        self, key: str, content: bytes | Path, *, over: str | None = ANYTHING, sha256: str = ""
    ) -> str:
        """Writes an object, whole or not at all; returns its etag. The store checks its sha256.

        `over`: only over the object with this etag; None: only where there is none. Raises Taken
        where something else lies there. An answer that was not seen is settled by looking: every
        writing bears a token of its own.
        """
        token = secrets.token_hex(16)
        for number in range(ATTEMPTS):
            with _explained(self.location_of(key)):
                try:
                    return self._put(key, content, token, over, sha256)
                except _any_error() as error:
                    if _is_final(error):
                        raise
                    there = self._head(key)
                    if there is not None and there["Metadata"].get(TOKEN) == token:
                        return str(there["ETag"])
                    if over != ANYTHING and (there["ETag"] if there else None) != over:
                        raise Taken(f"{self.location_of(key)} was written by another.") from None
                    if number == ATTEMPTS - 1:
                        raise
            _pause(number)
        raise AssertionError("unreachable")

    def _put(
        self, key: str, content: bytes | Path, token: str, over: str | None, sha256: str
    ) -> str:
        condition: dict[str, str] = {}
        if over is None:
            condition = {"IfNoneMatch": "*"}
        elif over != ANYTHING:
            condition = {"IfMatch": over}
        if isinstance(content, Path) and content.stat().st_size > PART_BYTES:
            return self._put_parts(key, content, token, condition)
        body = content.read_bytes() if isinstance(content, Path) else content
        reply = self._call(
            "put_object",
            key,
            Body=body,
            Metadata={TOKEN: token},
            ChecksumSHA256=_base64(bytes.fromhex(sha256) or hashlib.sha256(body).digest()),
            **condition,
        )
        return str(reply["ETag"])

    def _put_parts(self, key: str, file: Path, token: str, condition: Mapping[str, str]) -> str:
        """A large file in parts: invisible until the last call, and gone where that fails."""
        begun = self._call(
            "create_multipart_upload", key, Metadata={TOKEN: token}, ChecksumAlgorithm="SHA256"
        )["UploadId"]
        size = file.stat().st_size
        length = max(PART_BYTES, -(-size // 10_000))  # S3 knows ten thousand parts

        def put_part(number: int) -> dict[str, Any]:
            with file.open("rb") as source:
                source.seek(number * length)
                body = source.read(length)
            checksum = _base64(hashlib.sha256(body).digest())

            def attempt() -> dict[str, Any]:
                return self._call(
                    "upload_part",
                    key,
                    UploadId=begun,
                    PartNumber=number + 1,
                    Body=body,
                    ChecksumSHA256=checksum,
                )

            reply = _patiently(attempt)
            return {"PartNumber": number + 1, "ETag": reply["ETag"], "ChecksumSHA256": checksum}

        try:
            with ThreadPoolExecutor(2) as pool:
                parts = list(pool.map(put_part, range(-(-size // length))))
            reply = self._call(
                "complete_multipart_upload",
                key,
                UploadId=begun,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except BaseException:
            # Parts that nobody completes are billed. That it was completed after all, or that the
            # store is away, loses nothing.
            with suppress(*_any_error()):
                self._call("abort_multipart_upload", key, UploadId=begun)
            raise
        return str(reply["ETag"])

    def delete(self, key: str) -> None:
        with _explained(self.location_of(key)):
            self._call("delete_object", key)

    def abandon_parts(self, before: datetime) -> None:
        """Lets go of what was begun in parts before an instant, and never completed."""
        with _explained(str(self)):
            begun = self._call("list_multipart_uploads", Prefix=self.base).get("Uploads", [])
            for upload in begun:
                if upload["Initiated"] < before:
                    with suppress(_client_error()):  # somebody else has just done so
                        self._call(
                            "abort_multipart_upload",
                            upload["Key"].removeprefix(self.base),
                            UploadId=upload["UploadId"],
                        )


def in_parallel(work: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Waits for the store, not for a core: eight requests at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(work, items))


# ---- what lies at a location ----------------------------------------------------------------


def objects_at(location: str) -> list[RemoteObject]:
    """The objects under a prefix (with all below it), of a pattern, or one object; named as folders
    name them. Names that begin with a dot or an underscore, `*.tmp` and `*.part` are none.
    """
    whole = Bucket(f"{SCHEME}{location.removeprefix(SCHEME).partition('/')[0]}")
    path = location.removeprefix(SCHEME).partition("/")[2].strip("/")
    parts = path.split("/") if path else []
    plain = next((index for index, part in enumerate(parts) if set(part) & set("*?[")), None)
    if plain is None:
        folder, pattern = f"{path}/" if path else "", None
        prefix = path
    else:
        folder = "".join(f"{part}/" for part in parts[:plain])
        pattern = _pattern("/".join(parts[plain:]))
        prefix = folder + re.split(r"[*?\[]", parts[plain])[0]
    found = []
    for item in whole.objects(prefix):
        inside = item.key.removeprefix(folder)
        if item.key == path:
            inside = item.name
        elif not item.key.startswith(folder) or (pattern and not pattern.fullmatch(inside)):
            continue
        begins, ends = HIDDEN
        if item.name.endswith(ends) or any(part[:1] in begins for part in inside.split("/")):
            continue  # a key that ends in a slash only looks like a folder: its name is empty
        found.append(item)
    return found


def object_at(location: str) -> RemoteObject:
    """The object of that name, whatever letters are in it. Raises Changed where there is none."""
    name, _, key = location.removeprefix(SCHEME).partition("/")
    for item in Bucket(f"{SCHEME}{name}").objects(key):
        if item.key == key:
            return item
    raise Changed(f"{location} lies there no more.")


def _pattern(glob: str) -> re.Pattern[str]:
    """A pattern as Path.glob() reads it: `*` stays within a folder, `**/` doesn't."""
    text = ""
    for piece in re.findall(r"\*\*/|\*+|\?|\[!?\]?[^\]]*\]|.", glob, re.DOTALL):
        if piece == "**/":
            text += "(?:.*/)?"
        elif piece[0] == "*":
            text += "[^/]*"
        elif piece == "?":
            text += "[^/]"
        elif len(piece) > 1:
            text += "[" + piece[1:].replace("\\", r"\\").replace("!", "^", piece[1] == "!")
        else:
            text += re.escape(piece)
    return re.compile(text, re.DOTALL)


# ---- the client, and what may go wrong ------------------------------------------------------

ABSENT = {"NoSuchKey", "404", "NotFound"}
REPLACED = {"PreconditionFailed", "412", *ABSENT}
REFUSED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
}


Result = TypeVar("Result")


class _Torn(Exception):
    """Fewer bytes came than there are."""


def _client() -> Any:
    """One client for each environment; making one costs a tenth of a second."""
    stated = {name: text for name, text in os.environ.items() if name.startswith("AWS_")}
    return _client_of(tuple(sorted(stated.items())), os.getpid(), READ_SECONDS)


@functools.lru_cache(maxsize=4)
def _client_of(
    environment: tuple[tuple[str, str], ...],  # noqa: ARG001
    process: int,  # noqa: ARG001
    read_seconds: float,
) -> Any:
    import boto3  # half a second, which a house without an object store need not wait for
    from botocore.config import Config

    return boto3.session.Session().client(
        "s3",
        config=Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=read_seconds,
            max_pool_connections=2 * THREADS,
            # "standard" has a budget of retries for each process: after some hundred failures, one
            # single 500 would end a night
            retries={"mode": "legacy", "total_max_attempts": ATTEMPTS},
        ),
    )


def _client_error() -> type[Exception]:
    from botocore.exceptions import ClientError

    known: type[Exception] = ClientError
    return known


def _any_error() -> tuple[type[Exception], ...]:
    from botocore.exceptions import BotoCoreError, ClientError

    return BotoCoreError, ClientError, _Torn


def _code(error: Exception) -> str:
    """The S3 code of an answer: NoSuchKey, 412, …; of anything else its class."""
    answer = getattr(error, "response", None)
    stated = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return str(stated or type(error).__name__)


def _is_final(error: Exception) -> bool:
    """Whether it is no use to ask again."""
    return _code(error) in REFUSED | {"NoSuchBucket"} or type(error).__name__ in SET_UP


def _patiently(attempt: Callable[[], Result]) -> Result:
    """Makes an attempt again while its body is torn or damaged: what botocore can't see, as there
    is an answer by then.
    """
    number = 0
    while True:
        try:
            return attempt()
        except _any_error() as error:
            # it has tried by itself what could be tried before the answer came
            number += 1
            if number == ATTEMPTS or _code(error) not in TORN:
                raise
        _pause(number)


TORN = {"_Torn", "IncompleteReadError", "ResponseStreamingError", "ReadTimeoutError"} | {
    "ConnectionClosedError",
    "FlexibleChecksumError",
    "BadDigest",
}
SET_UP = {"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"} | {
    "CredentialRetrievalError",
    "TokenRetrievalError",
    "NoRegionError",
    "ParamValidationError",
}


def _pause(number: int) -> None:
    """Longer each time, and by chance, lest all come back at once."""
    time.sleep(min(20.0, 0.2 * 2**number) * (0.5 + secrets.randbelow(1000) / 2000))


@contextmanager
def _explained(place: str) -> Iterator[None]:
    """Turns what botocore raises into one sentence that says what to do."""
    try:
        yield
    except _any_error() as error:
        code = _code(error)
        if code in ABSENT:
            raise Changed(f"{place} is gone.") from None
        if code in REPLACED:
            raise Changed(f"{place} changed meanwhile.") from None
        raise ObjectStoreError(_sentence(place, code, error)) from None


def _sentence(place: str, code: str, error: Exception) -> str:
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "S3"
    endpoint = re.sub(r"//[^@/]*@", "//", endpoint)
    if code == "NoSuchBucket":
        bucket = place.removeprefix(SCHEME).partition("/")[0]
        return f"There is no bucket '{bucket}' at {endpoint}: make it, or mend the location."
    if code == "ParamValidationError":
        return f"{place} can't be: a bucket's name has 3 to 63 letters, digits, dots and hyphens."
    if code == "ProfileNotFound":
        return f"{place} can't be reached: AWS_PROFILE names no profile of your AWS configuration."
    if code in SET_UP - {"NoRegionError", "ParamValidationError"}:
        return (
            f"There are no credentials for {place}: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE."
        )
    if code in REFUSED:
        return (
            f"{place} may not be read or written with these credentials ({code}): check the AWS_* "
            "variables and the bucket's policy."
        )
    if code in ("EndpointConnectionError", "ConnectTimeoutError", "SSLError", "InvalidURL"):
        return f"{endpoint} does not answer ({code}): check AWS_ENDPOINT_URL_S3 and the network."
    if code == "FlexibleChecksumError" or isinstance(error, _Torn):
        return f"{place} did not come whole in {ATTEMPTS} attempts: run again later."
    return f"{place}: the object store answers {code}: run again later."


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
