"""From parsed TOML to typed tables, gathering every fault with its exact path instead of stopping at the first."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, get_args, get_origin

import msgspec

from keystrand.config.fields import MISSING, Field, bare, element_of_list, element_of_tables, fields_of, is_table
from keystrand.config.lines import Where
from keystrand.config.values import Address
from keystrand.core.protection import Protection

T = TypeVar("T")
FIGURE_HINT: Final = (
    'write 42.0, a range as in [40.0, 45.0], or a table as in { low = 40.0, high = 45.0, source = "…" }'
)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong, where, and what to write instead."""

    where: Where
    message: str
    hint: str = ""


def spell(where: Where) -> str:
    """`$.policy[0].require`"""
    return "$" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in where)


@dataclass(slots=True)
class Reader:
    """Reads tables of one file; `folder` is what relative paths are relative to."""

    folder: Path
    faults: list[Fault] = field(default_factory=list)

    def table(self, cls: Callable[..., T], raw: object, where: Where) -> T | None:
        """`raw` as `cls`, or None with at least one more fault."""
        if not isinstance(raw, dict):
            self.fault(where, f"is {_kind(raw)}, not a table", f"write [{'.'.join(map(str, where))}]")
            return None
        before = len(self.faults)
        known = fields_of(cls)
        raw, values = self.further(cls, raw, where)
        self.refuse_unknown(raw, [f.key for f in known], where)
        values |= {f.name: self.field(f, raw, where) for f in known if f.key in raw or f.default is MISSING}
        if len(self.faults) > before:
            return None
        try:
            return cls(**values)
        except ValueError as error:
            self.fault((*where, *_named_in(str(error), raw)), str(error))
            return None

    def further(self, cls: Any, raw: dict[str, object], where: Where) -> tuple[dict[str, object], dict[str, Any]]:
        """A table whose name and type `raw` itself decides (`cls.further`): what remains, and that as `settings`."""
        if not hasattr(cls, "further"):
            return raw, {}
        try:
            name, kind = cls.further(raw)
        except ValueError as error:
            self.fault((*where, "kind"), str(error))
            return raw, {}
        if name not in raw:
            self.fault((*where, name), "is missing", f"add a table [{'.'.join(map(str, (*where, name)))}]")
        rest = {key: value for key, value in raw.items() if key != name}
        return rest, {"settings": self.table(kind, raw.get(name, {}), (*where, name))}

    def refuse_unknown(self, raw: dict[str, object], known: list[str], where: Where) -> None:
        for key in raw.keys() - set(known):
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}"
            self.fault((*where, key), "is not a field of this table", hint)

    def field(self, f: Field, raw: dict[str, object], where: Where) -> Any:
        kind = bare(f.type)
        if f.key in raw:
            return self.value(f.type, raw[f.key], (*where, f.key))
        if is_table(kind):
            return self.fault((*where, f.key), "is missing", f"add a table [{'.'.join(map(str, (*where, f.key)))}]")
        return self.fault((*where, f.key), "is missing", f'add {f.key} = "…": {f.description}')

    def value(self, kind: Any, raw: object, where: Where) -> Any:
        plain = bare(kind)
        if is_table(plain):
            return self.table(plain, raw, where)
        if (element := element_of_tables(plain)) is not None:
            return self.tables(element, raw, where)
        if (element := element_of_list(plain)) is not None:
            return self.list(element, raw, where)
        return self.leaf(kind, plain, raw, where)

    def tables(self, element: type, raw: object, where: Where) -> dict[str, Any]:
        if not isinstance(raw, dict):
            self.fault(where, f"is {_kind(raw)}, not a table of tables", f"write [{'.'.join(map(str, where))}.NAME]")
            return {}
        return {key: self.table(element, inner, (*where, key)) for key, inner in raw.items()}

    def list(self, element: type, raw: object, where: Where) -> tuple[Any, ...]:
        if not isinstance(raw, list):
            self.fault(where, f"is {_kind(raw)}, not an array of tables", f"write [[{'.'.join(map(str, where))}]]")
            return ()
        return tuple(self.table(element, inner, (*where, i)) for i, inner in enumerate(raw))

    def leaf(self, kind: Any, plain: Any, raw: object, where: Where) -> Any:
        try:
            if isinstance(raw, float) and not math.isfinite(raw):
                raise ValueError(f"is {raw}, not a finite number")
            if plain is Protection:
                return Protection.parse(raw if isinstance(raw, str) else repr(raw))
            if get_origin(plain) is Literal and raw not in get_args(plain):
                raise ValueError(f"is {raw!r}, none of {', '.join(map(repr, get_args(plain)))}")
            if odd := _unknown_words(plain, raw):
                raise ValueError(odd)
            if isinstance(plain, type) and issubclass(plain, Enum) and raw not in list(plain):
                raise ValueError(f"is {raw!r}, none of {', '.join(repr(word.value) for word in plain)}")
            return msgspec.convert(raw, _bounded(kind, plain), dec_hook=self.custom, builtin_types=(datetime, date))
        except (ValueError, TypeError) as error:  # msgspec.ValidationError is a ValueError
            message = str(error).removesuffix(" - at `$`")
            if message.startswith("Expected `") and "|" in message and " - at " not in message:
                return self.fault(where, f"is {_kind(raw)}, not a figure", FIGURE_HINT)
            return self.fault(where, message)

    def custom(self, kind: type, raw: object) -> object:
        if not isinstance(raw, str) or not raw or "\0" in raw:
            raise ValueError(f"is {_kind(raw)}, not a text" if not isinstance(raw, str) else "is empty or has a NUL")
        if issubclass(kind, Path):
            return self.folder / Path(raw).expanduser()
        assert kind is Address, f"no way to read a {kind}"
        return Address(raw)

    def fault(self, where: Where, message: str, hint: str = "") -> None:
        self.faults.append(Fault(where, message, hint))


def _bounded(kind: Any, plain: Any) -> Any:
    """`plain` under the bounds that `kind` states: msgspec wants them on the number, not on the choice of number or none."""
    return Annotated[(plain, *kind.__metadata__)] if get_origin(kind) is Annotated else plain


def _unknown_words(plain: Any, raw: object) -> str:
    """Why an array of words that are stated cannot be this one; "" where it can, or `plain` is none."""
    element = get_args(plain)[0] if get_origin(plain) is tuple and get_args(plain) else None
    if get_origin(element) is not Literal or not isinstance(raw, list):
        return ""
    odd = next((word for word in raw if word not in get_args(element)), None)
    return "" if odd is None else f"has {odd!r}, none of {', '.join(map(repr, get_args(element)))}"


def _kind(raw: object) -> str:
    names = {str: "a text", bool: "a boolean", int: "an integer", float: "a number", list: "an array", dict: "a table"}
    return names.get(type(raw), f"a {type(raw).__name__}")


def _named_in(message: str, keys: Iterable[str]) -> Where:
    """The first of `keys` that the message names: a dataclass that checks itself says which figure is off."""
    return next(((key,) for key in sorted(keys, key=len, reverse=True) if key in message), ())
