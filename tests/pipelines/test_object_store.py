"""Reading and writing objects past a store that fails, and request logs that lie in one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines import object_store
from pipelines.object_store import (
    Bucket,
    Changed,
    ObjectStoreError,
    RemoteObject,
    Taken,
    objects_at,
)
from tests import buckets
from tests.buckets import FAULTS, SLOW_FAULTS, Asked, Fault, Proxy

PLACE = "s3://bucket/house"


def first(fault: Fault, count: int = 1, method: str = "") -> Callable[[Asked], Fault]:
    """The fault, for the first requests (of a method)."""
    left = [count]

    def choose(asked: Asked) -> Fault:
        if left[0] and method in ("", asked.method):
            left[0] -= 1
            return fault
        return ""

    return choose


def listed(location: str) -> list[RemoteObject]:
    return objects_at(location)


# ---- listing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("s3://bucket/logs", ["logs/a.jsonl", "logs/deep/b.jsonl", "logs/deep/er/c.csv"]),
        ("s3://bucket/logs/", ["logs/a.jsonl", "logs/deep/b.jsonl", "logs/deep/er/c.csv"]),
        ("s3://bucket/logs/a.jsonl", ["logs/a.jsonl"]),
        ("s3://bucket/logs/*.jsonl", ["logs/a.jsonl"]),
        ("s3://bucket/logs/**/*.jsonl", ["logs/a.jsonl", "logs/deep/b.jsonl"]),
        ("s3://bucket/l*/deep/[!a].jsonl", ["logs/deep/b.jsonl"]),
        ("s3://bucket/log", []),
        ("s3://bucket/none", []),
    ],
)
def test_a_location_is_a_prefix_a_pattern_or_an_object(
    proxy: Proxy, location: str, expected: list[str]
) -> None:
    for key in (
        "logs/a.jsonl",
        "logs/deep/b.jsonl",
        "logs/deep/er/c.csv",
        "logs/.hidden.jsonl",
        "logs/_tmp/d.jsonl",
        "logs/e.jsonl.tmp",
        "logs/f.part",
        "logs/",
        "logs2/g.jsonl",
    ):
        buckets.put(proxy, f"s3://bucket/{key}", b"x")

    assert [item.key for item in listed(location)] == expected


def test_a_listing_goes_on_with_the_page_that_failed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        buckets.put(proxy, f"{PLACE}/{number}.jsonl", b"x")
    call = Bucket._call
    monkeypatch.setattr(
        Bucket,
        "_call",
        lambda self, name, key=None, **given: call(
            self, name, key, **given, **({"MaxKeys": 2} if name == "list_objects_v2" else {})
        ),
    )
    proxy.choose = lambda asked: "503" if asked.number in (2, 3, 5) else ""

    assert len(listed(PLACE)) == 5
    assert proxy.count("GET") == 3 + 3


# ---- getting --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*FAULTS, *SLOW_FAULTS])
def test_what_goes_wrong_on_the_way_is_tried_again(
    proxy: Proxy, tmp_path: Path, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault in SLOW_FAULTS:
        buckets.be_impatient(monkeypatch)
    content = bytes(range(256)) * 4000
    buckets.put(proxy, f"{PLACE}/a.jsonl", content)
    [item] = listed(PLACE)
    proxy.choose = first(fault, 2)

    item.fetch(tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == content
    assert proxy.seen.total() > proxy.seen[""]


def test_a_store_that_failed_a_thousand_times_is_asked_as_patiently_as_before(
    proxy: Proxy, tmp_path: Path
) -> None:
    buckets.put(proxy, f"{PLACE}/a.jsonl", b"x")
    [item] = listed(PLACE)

    for _ in range(200):
        proxy.choose = first("500", object_store.ATTEMPTS - 1)
        item.fetch(tmp_path / "a")

    assert proxy.seen["500"] == 200 * (object_store.ATTEMPTS - 1)


def test_a_torn_download_goes_on_where_it_was_torn(proxy: Proxy, tmp_path: Path) -> None:
    buckets.put(proxy, f"{PLACE}/a.jsonl", b"0123456789" * 1000)
    [item] = listed(PLACE)
    proxy.choose = first("torn", 3)

    item.fetch(tmp_path / "a")

    assert (tmp_path / "a").read_bytes() == b"0123456789" * 1000
    assert [asked.headers.get("range") for asked in proxy.asked[-3:]] == [
        "bytes=5000-",
        "bytes=7500-",
        "bytes=8750-",
    ]


def test_an_object_replaced_since_it_was_listed_is_not_mixed(proxy: Proxy, tmp_path: Path) -> None:
    buckets.put(proxy, f"{PLACE}/a.jsonl", b"old" * 1000)
    [item] = listed(PLACE)

    def replace_after_half(asked: Asked) -> Fault:
        if not asked.headers.get("range"):
            return "torn"
        buckets.put(proxy, f"{PLACE}/a.jsonl", b"new" * 1000)
        return ""

    proxy.choose = replace_after_half

    with pytest.raises(Changed):
        item.fetch(tmp_path / "a")

    assert not (tmp_path / "a").exists()


def test_an_object_that_never_comes_whole_is_a_sentence(proxy: Proxy, tmp_path: Path) -> None:
    buckets.put(proxy, f"{PLACE}/a.jsonl", b"x")
    [item] = listed(PLACE)
    proxy.choose = lambda _: "503"

    with pytest.raises(ObjectStoreError, match="SlowDown: run again later"):
        item.fetch(tmp_path / "a")


# ---- putting --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*FAULTS, *SLOW_FAULTS])
@pytest.mark.parametrize("over", ["*", None, "etag"])
def test_an_object_is_put_once_whatever_goes_wrong(
    proxy: Proxy, fault: Fault, over: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if fault in SLOW_FAULTS:
        buckets.be_impatient(monkeypatch)
    if over == "etag":
        over = buckets.put(proxy, f"{PLACE}/a", b"before")
    proxy.choose = first(fault, 2, "PUT")

    etag = Bucket(PLACE).put("a", b"after", over=over)

    found = Bucket(PLACE).get("a")
    assert found is not None
    assert (found.content, found.etag) == (b"after", etag)


@pytest.mark.parametrize("over", [None, '"of another"'])
def test_what_another_wrote_is_not_written_over(proxy: Proxy, over: str | None) -> None:
    buckets.put(proxy, f"{PLACE}/a", b"another's")

    with pytest.raises(Taken):
        Bucket(PLACE).put("a", b"mine", over=over)

    assert buckets.contents(proxy, PLACE) == {"a": b"another's"}


def test_an_answer_never_seen_is_settled_though_another_wrote_the_same(proxy: Proxy) -> None:
    """Equal bytes are no proof of who wrote them."""
    buckets.put(proxy, f"{PLACE}/a", b"the same")

    with pytest.raises(Taken):
        Bucket(PLACE).put("a", b"the same", over=None)


@pytest.mark.parametrize("fault", ["", *FAULTS])
def test_a_large_file_goes_up_in_parts_and_comes_back(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(object_store, "PART_BYTES", 5 * 2**20)  # as few as S3 allows
    content = bytes(range(256)) * 48_000
    (tmp_path / "large").write_bytes(content)
    proxy.choose = lambda asked: fault if asked.number % 3 == 1 else ""

    Bucket(PLACE).put("large", tmp_path / "large")
    proxy.choose = lambda _: ""

    assert buckets.contents(proxy, PLACE)["large"] == content
    assert proxy.count("PUT", "partNumber") >= 3


# ---- sentences ------------------------------------------------------------------------------


def test_a_missing_bucket_is_said(proxy: Proxy) -> None:
    with pytest.raises(ObjectStoreError, match="There is no bucket 'other-bucket' at http://127"):
        listed("s3://other-bucket/x")


def test_missing_credentials_are_said(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)

    with pytest.raises(ObjectStoreError, match="no credentials for s3://bucket"):
        listed(PLACE)


def test_an_unknown_profile_is_said(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")

    with pytest.raises(ObjectStoreError, match="AWS_PROFILE names no profile"):
        listed(PLACE)


def test_an_endpoint_that_is_away_is_said(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    with pytest.raises(ObjectStoreError, match=r"http://127.0.0.1:9 does not answer"):
        listed(PLACE)


def test_a_place_without_a_bucket_is_said() -> None:
    with pytest.raises(ObjectStoreError, match="write it as s3://bucket/prefix"):
        Bucket("s3:///x")
