"""What the settings of several connectors can have wrong, as (field, message)."""

from __future__ import annotations

from collections.abc import Callable

Reading = Callable[[str], object]


def address_faults(settings: object, **readings: Reading) -> list[tuple[str, str]]:
    """Fields that hold an address or several, with the function of `ipaddress` that reads them. None is no fault."""
    found = []
    for field, reading in readings.items():
        value = getattr(settings, field)
        for text in [value] if isinstance(value, str) else value or ():
            found += address_fault(field, text, reading)
    return found


def address_fault(field: str, text: str, reading: Reading) -> list[tuple[str, str]]:
    try:
        reading(text)
    except ValueError as error:
        return [(field, str(error))]
    return []
