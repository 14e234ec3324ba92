"""The last weeks of an alert's subject as a picture: what it spent each day, and what was normal.

A PNG, because mail clients show neither SVG nor anything that a script draws. Drawn at three times
its size and made smaller, which is what makes its edges smooth.
"""

import io
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from decimal import Decimal

from PIL import Image, ImageDraw, ImageFont

from exports.alerts import Alert, Day

WIDTH, HEIGHT = 544, 210  # as shown; the file has twice as many pixels each way, for fine screens
SCALE, SHOWN = 4, 2
LEFT, RIGHT, TOP, BOTTOM = 4, 52, 34, 28

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

PAPER = (255, 255, 255)
INK = (106, 106, 102)
GRID = (236, 236, 232)
BAND = (226, 238, 231)
LIMIT = (111, 150, 128)
QUIET = (164, 178, 170)
LOUD = (190, 48, 36)


def png(alert: Alert) -> bytes | None:
    """The chart; None where there are not two days to compare.

    Of a budget the bars add up since the cycle began, and the line is the budget.
    """
    if len(alert.days) < 2:
        return None
    days = _sums(alert) if alert.is_budget else list(alert.days)
    picture = Image.new("RGB", (WIDTH * SCALE, HEIGHT * SCALE), PAPER)
    _draw(ImageDraw.Draw(picture), alert, _every_day(days, alert.is_budget))
    small = picture.resize((WIDTH * SHOWN, HEIGHT * SHOWN), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()


def described(alert: Alert) -> str:
    """What the chart shows, for whoever does not see it."""
    days = alert.days
    span = f"{days[0].usage_date:%-d %b} to {days[-1].usage_date:%-d %b %Y}"
    if alert.is_budget:
        return f"Credits added up from {span}, against {alert.upper_limit or 0:,.2f}"
    most = max(days, key=lambda day: day.credits)
    return (
        f"Credits a day from {span}, the most on {most.usage_date:%-d %b} with "
        f"{most.credits:,.2f}, and the normal range of each day"
    )


def _sums(alert: Alert) -> list[Day]:
    """The days' credits added up, each against the budget."""
    total, found = Decimal(0), []
    for day in alert.days:
        total += day.credits
        found.append(Day(day.usage_date, total, None, alert.upper_limit))
    return found


def _every_day(days: Sequence[Day], is_sum: bool) -> list[Day]:
    """The same with the days on which nothing was spent."""
    known = {day.usage_date: day for day in days}
    found: list[Day] = []
    for number in range((days[-1].usage_date - days[0].usage_date).days + 1):
        at = days[0].usage_date + timedelta(days=number)
        missing = Day(at, Decimal(0))
        if is_sum and found:
            missing = Day(at, found[-1].credits, None, found[-1].upper_limit)
        found.append(known.get(at, missing))
    return found


def _draw(draw: ImageDraw.ImageDraw, alert: Alert, days: Sequence[Day]) -> None:
    font = ImageFont.load_default(14 * SCALE)
    top = _nice(max(float(max(day.credits, day.upper_limit or Decimal(0))) for day in days))
    step = (WIDTH - LEFT - RIGHT) / len(days)

    def across(number: float) -> float:
        return (LEFT + number * step) * SCALE

    def up(credits: float) -> float:
        return (HEIGHT - BOTTOM - credits / top * (HEIGHT - TOP - BOTTOM)) * SCALE

    for part in (0.5, 1.0):
        draw.line((across(0), up(top * part), across(len(days)), up(top * part)), GRID, SCALE)
        label = _short(top * part)
        draw.text((across(len(days)) + 6 * SCALE, up(top * part)), label, INK, font, anchor="lm")
    for number, day in enumerate(days):
        if day.upper_limit is not None and not alert.is_budget:
            high = up(float(day.upper_limit))
            draw.rectangle((across(number), high, across(number + 1), up(0)), BAND)
    for number, day in enumerate(days):
        if day.upper_limit is not None:
            high = up(float(day.upper_limit))
            draw.line((across(number), high, across(number + 1), high), LIMIT, round(1.4 * SCALE))
        if day.credits <= 0:
            continue
        is_loud = day.upper_limit is not None and day.credits > day.upper_limit
        is_loud = is_loud or (alert.usage_date <= day.usage_date <= alert.last_date)
        gap = min(1.5, step * 0.18)
        bar = min(up(float(day.credits)), up(0) - SCALE)
        box = (across(number) + gap * SCALE, bar, across(number + 1) - gap * SCALE, up(0))
        draw.rounded_rectangle(box, round(1.5 * SCALE), LOUD if is_loud else QUIET)
    draw.line((across(0), up(0), across(len(days)), up(0)), INK, SCALE)
    _dates(draw, font, [day.usage_date for day in days], across)
    _legend(draw, font, alert)


def _dates(
    draw: ImageDraw.ImageDraw, font: Font, days: Sequence[date], across: Callable[[float], float]
) -> None:
    """A date at the first day, the last, and each fortnight between them that has room."""
    place = HEIGHT - BOTTOM + 15
    last = len(days) - 1
    shown = list(range(0, last - 7, 14)) or [0]
    for number in [*shown, last]:
        anchor = "lm" if number == 0 else "rm" if number == last else "mm"
        x = across(number + (1 if number == last else 0.5 if number else 0))
        draw.text((x, place * SCALE), f"{days[number]:%-d %b}", INK, font, anchor=anchor)


def _legend(draw: ImageDraw.ImageDraw, font: Font, alert: Alert) -> None:
    x, y = float(LEFT), 11.0
    names = [(QUIET, "credits a day"), (LOUD, "out of range"), (BAND, "normal range")]
    if alert.is_budget:
        limit = "budget" if alert.kind == "budget" else "allowance"
        names = [(QUIET, "credits, added up"), (LOUD, "beyond it"), (LIMIT, limit)]
    for colour, name in names:
        box = (x * SCALE, (y - 4) * SCALE, (x + 9) * SCALE, (y + 5) * SCALE)
        draw.rounded_rectangle(box, 2 * SCALE, colour)
        draw.text(((x + 14) * SCALE, y * SCALE), name, INK, font, anchor="lm")
        x += 14 + draw.textlength(name, font) / SCALE + 18


def _nice(most: float) -> float:
    """The top of the scale: a round number not much above the most."""
    if most <= 0:
        return 1.0
    size = 10.0 ** (len(f"{most:.0f}") - 1) if most >= 1 else 1.0
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return next(size * step for step in steps if size * step >= most)


def _short(value: float) -> str:
    """`1.5k`, `20M`: four digits at most."""
    for size, name in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{name}"
    return f"{value:.3g}"
