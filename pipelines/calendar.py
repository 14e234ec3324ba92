"""The clock and the calendar: one stated instant from which every date of a night follows.

As-of is an exclusive end (contract, "The clock"): `--date D` is D+1 00:00 UTC, and "today" is the
day that holds the
microsecond before it. Nothing below raw reads the wall clock; landing stamps `arrived_at` from it,
and that is all.
"""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

MICROSECOND = timedelta(microseconds=1)
DAY = timedelta(days=1)


def utc_now() -> datetime:
    """The wall clock, UTC, without a zone (every instant in the house is UTC)."""
    return datetime.now(UTC).replace(tzinfo=None)


def parse_day(text: str) -> date:
    """`YYYY-MM-DD` to a date; ValueError says what was expected."""
    try:
        day = datetime.strptime(text, "%Y-%m-%d").date()
        if not date.min + DAY < day < date.max - DAY:  # its neighbours must be days too
            raise ValueError
        return day
    except ValueError:
        raise ValueError(f"'{text}' is no date there is: write it as YYYY-MM-DD.") from None


def parse_instant(text: str) -> datetime:
    """An RFC 3339 instant, or a date (its midnight, UTC), to a UTC datetime without zone."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"'{text}' is not an instant: write it as 2026-11-22T06:00:00Z, or as a date."
        ) from None
    if instant.tzinfo is not None:
        instant = instant.astimezone(UTC).replace(tzinfo=None)
    return instant


@dataclass(frozen=True)
class Clock:
    """A night's stated clock.

    `as_of`: exclusive end of what the night knows, UTC. `arrived_at`: the wall clock when it
    started, stamped on what lands.
    """

    as_of: datetime
    arrived_at: datetime

    @classmethod
    def at(cls, as_of: datetime | None = None, day: date | None = None) -> "Clock":
        """The clock for `--as-of`, or `--date` (that day, whole), or now."""
        now = utc_now()
        if day is not None:
            as_of = datetime.combine(day + DAY, datetime.min.time())
        return cls(as_of=as_of or now, arrived_at=now)

    @property
    def today(self) -> date:
        """The UTC date of the microsecond before as-of: "the night's date"."""
        return (self.as_of - MICROSECOND).date()

    @property
    def tomorrow(self) -> date:
        return self.today + DAY

    def is_complete(self, day: date) -> bool:
        """Whether the UTC day ended at or before as-of."""
        return datetime.combine(day + DAY, datetime.min.time()) <= self.as_of

    def history_until(self, day: date) -> date:
        """The last complete day before `day`: what a range of that day may learn from."""
        last_complete = self.today if self.is_complete(self.today) else self.today - DAY
        return min(max(day, date.min + DAY) - DAY, last_complete)

    def parameters(self, day: date | None = None) -> dict[str, object]:
        """The values SQL files may name with `$`, for a day or for the night as a whole."""
        values: dict[str, object] = {"as_of": self.as_of, "today": self.today}
        if day is not None:
            values |= {
                "day": day,
                "is_complete": self.is_complete(day),
                "history_until": self.history_until(day),
                "is_tomorrow": day == self.tomorrow,
                "slice": 0,  # all of a day at once; a night that lacks the memory takes turns
                "slice_count": 1,
            }
        return values
