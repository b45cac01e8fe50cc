"""One view of both kinds of typed tables: msgspec structs of the schema, dataclasses of the lower rooms."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Mapping
from functools import cache
from typing import Annotated, Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

T = TypeVar("T")
MISSING: Final = object()


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field as the file spells it (`key`) and as the code does (`name`). default: MISSING where it must be stated."""

    key: str
    name: str
    type: Any
    default: Any
    description: str


def is_table(kind: Any) -> bool:
    """Does `kind` describe a table with named fields?"""
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


@cache
def fields_of(cls: Any) -> tuple[Field, ...]:
    """Every field, in the order of its definition."""
    hints = get_type_hints(cls, include_extras=True)
    if issubclass(cls, msgspec.Struct):
        found = [
            (
                f.encode_name,
                f.name,
                MISSING if f.required else _default(f.default, f.default_factory, msgspec.NODEFAULT),
            )
            for f in msgspec.structs.fields(cls)
        ]
    else:
        found = [
            (f.name, f.name, _default(f.default, f.default_factory, dataclasses.MISSING))
            for f in dataclasses.fields(cls)
        ]
    return tuple(
        Field(key, name, hints[name], default, description(hints[name]))
        for key, name, default in found
        if not is_internal(hints[name])
    )


def alike(kind: Callable[..., T], source: object, **other: object) -> T:
    """A dataclass with the fields of `source` of the same names, but for those that `other` gives: none can be forgotten."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]  # a class of dataclasses
    return kind(**{name: other[name] if name in other else getattr(source, name) for name in names})


def is_internal(kind: Any) -> bool:
    """`Meta(extra={"internal": True})`: filled in by us, no field of the file."""
    return any(isinstance(m, msgspec.Meta) and (m.extra or {}).get("internal") for m in _metadata(kind))


def _default(value: Any, factory: Any, absent: object) -> Any:
    if value is not absent:
        return value
    return MISSING if factory is absent else factory()


def description(kind: Any) -> str:
    """The text of `Meta(description=…)`, or empty."""
    return next((m.description for m in _metadata(kind) if isinstance(m, msgspec.Meta) and m.description), "")


def _metadata(kind: Any) -> tuple[Any, ...]:
    return kind.__metadata__ if get_origin(kind) is Annotated else ()


def bare(kind: Any) -> Any:
    """`kind` without Annotated and without `| None`: TOML has no null, an optional field is simply left out. A choice of kinds,
    such as a number or a range, stays one."""
    if get_origin(kind) is Annotated:
        return bare(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        rest = [part for part in get_args(kind) if part is not type(None)]
        return bare(rest[0]) if len(rest) == 1 else Union[tuple(rest)]  # noqa: UP007  built at run time
    return kind


def element_of_tables(kind: Any) -> Any:
    """For `Mapping[str, T]` of tables: T. None for anything else."""
    if get_origin(kind) in (dict, Mapping) and is_table(get_args(kind)[1]):
        return get_args(kind)[1]
    return None


def element_of_list(kind: Any) -> Any:
    """For `tuple[T, ...]` of tables: T. None for anything else."""
    if get_origin(kind) is tuple and is_table(get_args(kind)[0]):
        return get_args(kind)[0]
    return None
