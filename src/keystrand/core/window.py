"""Change windows: when a policy may be changed and keys may be rotated in bulk. Weekdays, hours and a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """From `begin` to `end` (HH:MM on the clock of `zone`), on each of `days`; past midnight where end <= begin.

    A window belongs to the day on which it begins. Raises ValueError for a day, time or zone that does not exist.
    """

    days: tuple[str, ...]
    begin: str
    end: str
    zone: str = "UTC"

    def __post_init__(self) -> None:
        if not self.days or not set(self.days) <= set(WEEKDAYS):
            raise ValueError(f"days: {', '.join(self.days) or 'none'}; choose from {', '.join(WEEKDAYS)}")
        minutes_of(self.begin)
        minutes_of(self.end)
        try:
            ZoneInfo(self.zone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"zone: {self.zone!r} is not a time zone of this machine, such as Europe/Zurich") from None

    def is_open(self, now_s: float) -> bool:
        """Whether the Unix time `now_s` lies within."""
        local = datetime.fromtimestamp(now_s, UTC).astimezone(ZoneInfo(self.zone))
        minute = 60 * local.hour + local.minute
        begin, end = minutes_of(self.begin), minutes_of(self.end)
        if begin < end:
            return self._names(local) and begin <= minute < end
        return (self._names(local) and minute >= begin) or (self._names(local - timedelta(days=1)) and minute < end)

    def _names(self, day: datetime) -> bool:
        return WEEKDAYS[day.weekday()] in self.days

    def __str__(self) -> str:
        return f"{','.join(self.days)} {self.begin}-{self.end} {self.zone}"


def minutes_of(text: str) -> int:
    """Minutes after midnight. Raises ValueError for anything but HH:MM."""
    hours, colon, minutes = text.partition(":")
    digits = f"{hours}{minutes}"
    if not (colon and len(hours) == len(minutes) == 2 and digits.isascii() and digits.isdigit()):
        raise ValueError(f"{text!r} is not a time of day, such as 22:30")
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError(f"{text!r} is not a time of day, such as 22:30")
    return 60 * int(hours) + int(minutes)
