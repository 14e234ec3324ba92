"""What Stripe's CSV files say of money and time: major units to minor ones, exactly, and UTC times.

Nothing is rounded and nothing guessed; what can't be said exactly is refused, with a reason that
does not quote it. Lands nothing by itself.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

from pipelines.reading import RecordRefused

# facts/reconciliation.md, section 2; sql/staging/currencies.sql says the same; a test compares.
ZERO_PLACES = (
    *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
    *("pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"),
)
THREE_PLACES = ("bhd", "jod", "kwd", "omr", "tnd")
PLACES: Mapping[str, int | None] = (
    dict.fromkeys(ZERO_PLACES, 0) | dict.fromkeys(THREE_PLACES, 3) | {"ugx": None}
)


def minor_units(stated: str, currency: str, name: str, *, is_signed: bool = False) -> int:
    """Major units as text to minor units, exactly. Raises RecordRefused for what can't be said
    exactly.

    >>> minor_units("49.5", "usd", "Amount") 4950
    """
    places = PLACES.get(currency, 2)
    if places is None:
        raise RecordRefused(f"{name}: how many places its currency has is not known")
    if not re.fullmatch(rf"{'-?' if is_signed else ''}[0-9]{{1,15}}(\.[0-9]+)?", stated, re.ASCII):
        raise RecordRefused(f"{name} is not a plain amount")
    if len(stated.partition(".")[2]) > places:
        raise RecordRefused(f"{name} has more than the {places} places of its currency")
    return int(Decimal(stated).scaleb(places))


def utc(stated: str, name: str) -> datetime:
    """A time of a column in UTC. Raises RecordRefused for anything else, and for no such time."""
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[ Tt](\d\d:\d\d)(:\d\d)?(?:\.\d+)?(?:[Zz]| UTC)?", stated, re.ASCII
    )
    if not found:
        raise RecordRefused(f"{name} is not a time like 2026-11-22 06:00")
    try:
        return datetime.fromisoformat(f"{found[1]}T{found[2]}{found[3] or ':00'}")
    except ValueError:
        raise RecordRefused(f"{name} is no time there is") from None


def word(stated: str) -> str:
    """A column's name or a value, whatever its case and whether blanks are underscores."""
    return " ".join(stated.lower().replace("_", " ").split())
