"""Every field of site.toml, module.toml, estate.toml and answers.toml: `python docs/configuration.py` writes
reference/configuration.md, reference/estate.md and reference/answers.md."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import msgspec

from keystrand.config.fields import MISSING, Field, bare, element_of_list, element_of_tables, fields_of, is_table
from keystrand.config.module import ModuleConfig
from keystrand.config.schema import SiteConfig
from keystrand.config.sources import SETTINGS
from keystrand.config.values import Address
from keystrand.core.limits import Limits
from keystrand.core.protection import Protection
from keystrand.plan.answers import Answers, questionnaire
from keystrand.plan.estate import Estate
from keystrand.plan.fact import Stated
from keystrand.transport.tunnel.kinds import BUILT_IN, find

PAGE = Path(__file__).parent / "reference" / "configuration.md"

ESTATE_PAGE = PAGE.with_name("estate.md")

ANSWERS_PAGE = PAGE.with_name("answers.md")

HEAD = """\
# Configuration

<!-- Printed by `python docs/configuration.py`; a test compares. -->

One TOML file per program: `site.toml` for a key manager and its gateway (`keystrand serve`), `module.toml` for one end of a
simulated QKD link (`keystrand module`). Paths are relative to the file. Secrets are given by path only, and such a file must
be readable for its owner alone. `keystrand config check FILE` tells every fault with its line; a program does not start on
a file with a fault. Fields without a default must be stated.

Refused besides what the tables say: names that lead nowhere (a link to an unknown peer, an SAE of an unknown site, a rule
for an unknown SAE, a selector that stands for none), names that are easily confused, pairs that tenants or tags forbid, a
rule that fails open without a fallback, two listeners on one address, one module for two links, a status page that is not
on loopback, protection below `hybrid` without a waiver, a waiver that has ended or waives nothing, a rule that needs
quantum keys where no link leads, TLS 1.2 together with `require_pqc_group`, a simulated quantum channel that is not on
loopback (it carries the seed of its light in clear), figures that are not finite, and secret files that others can read.
"""

ANSWERS_HEAD = """\
# The file of vendors' answers

<!-- Printed by `python docs/configuration.py`; a test compares. -->

`answers.toml` is what `keystrand plan vendors` works on; see the guide [weigh vendors](../guides/vendors.md).
"""

CRITERIA_HEAD = """
## Questions

Names of `[products.NAME.answers.CRITERION]` and of `[weights]`.

| criterion | group | question | weight | knocks out |
|---|---|---|---|---|
"""

FLAGS_HEAD = """
## Red flags

Names of `[products.NAME.dispositions.FLAG]`.

| flag | because |
|---|---|
"""

ESTATE_HEAD = """\
# The file of an estate

<!-- Printed by `python docs/configuration.py`; a test compares. -->

`estate.toml` is what `keystrand plan` works on: sites, links, data classes, devices and people. `keystrand plan check ESTATE`
tells every fault with its line, and then what the plan lacks. See the guide [write and import an estate](../guides/estate.md).

A field that is left out is unknown and stays so; no figure and no answer is made up for it. Answers are `yes`, `no`,
`not-applicable` and `unknown`. A *figure* is a number (`42.0`), a range (`[40.0, 45.0]`), or a table that states what it
rests on:

```toml
loss_db = { likely = 9.1, low = 8.9, high = 9.4, basis = "measured", tool = "OTDR", dated = 2026-05-01 }
```

The first two forms count as assumed.

Refused besides what the tables say: names that lead nowhere, a link from a site to itself, a template or profile that is not
there, ranges upside down, figures that are negative or not finite, shares above 1, one coordinate without the other.
"""

TAIL = """
## Limits

`[limits]` of a site's file: see [limits](../limits.md).
"""

FIGURE = "figure"
WORDS = {
    date: "date",
    str: "text",
    bool: "true or false",
    int: "integer",
    float: "number",
    Path: "path",
    Address: "host:port",
    datetime: "date and time",
}


def page() -> str:
    """The whole of configuration.md."""
    parts = [HEAD, "\n## site.toml\n", *tables(SiteConfig, ()), *kinds_of_tunnels(), *kinds_of_sources()]
    return "".join([*parts, "\n## module.toml\n", *tables(ModuleConfig, ()), TAIL])


def estate_page() -> str:
    """The whole of estate.md."""
    return "".join([ESTATE_HEAD, *tables(Estate, ())])


def answers_page() -> str:
    """The whole of answers.md."""
    asked = questionnaire()
    criteria = "".join(
        f"| `{c.name}` | {c.group} | {c.asks} | {c.weight:g} | {'yes' if c.knock_out else ''} |\n"
        for c in asked.criteria
    )
    flags = "".join(f"| `{f.name}` | {f.because} |\n" for f in asked.flags)
    return "".join([ANSWERS_HEAD, *tables(Answers, ()), CRITERIA_HEAD, criteria, FLAGS_HEAD, flags])


def kinds_of_tunnels() -> Iterator[str]:
    """The table that each kind of tunnel brings along."""
    for name in sorted(BUILT_IN):
        yield from tables(find(name).settings, ("tunnel", "NAME", name))


def kinds_of_sources() -> Iterator[str]:
    """The table that each kind of source brings along."""
    for name, settings in SETTINGS.items():
        yield from tables(settings, ("sources", "LINK", name))


def tables(cls: type, path: tuple[str, ...], brackets: str = "[{}]") -> Iterator[str]:
    """One section per table below and including `cls`; the outermost table has no fields of its own."""
    inner = [field for field in fields_of(cls) if _below(field) is not None]
    plain = [field for field in fields_of(cls) if _below(field) is None]
    if plain:
        place = f"`{brackets.format('.'.join(path))}`" if path else "The head of the file"
        yield f"\n### {place}\n\n{_about(cls)}\n\n"
        yield "| field | kind | default | meaning |\n|---|---|---|---|\n"
        yield "".join(f"| `{f.key}` | {kind_of(f)} | {_default(f)} | {meaning_of(cls, f)} |\n" for f in plain)
    for field in inner:
        below, suffix, form = _below(field) or (cls, "", "")
        if below is not Limits:
            yield from tables(below, (*path, field.key, *([suffix] if suffix else [])), form)


def _below(field: Field) -> tuple[type, str, str] | None:
    """Kind of the table that a field holds, what is appended to its path, and how its header is written."""
    kind = bare(field.type)
    if is_table(kind):
        return kind, "", "[{}]"
    if (element := element_of_tables(kind)) is not None:
        return element, "NAME", "[{}]"
    if (element := element_of_list(kind)) is not None:
        return element, "", "[[{}]]"
    return None


def _about(cls: type) -> str:
    """The first paragraph of the docstring."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def meaning_of(cls: type, field: Field) -> str:
    """What the schema says of a field; for a dataclass, what its docstring does: `name: text; name, name: text.`"""
    if issubclass(cls, msgspec.Struct):
        return field.description
    told = " ".join((inspect.getdoc(cls) or "").partition("\n\n")[2].split()).rstrip(".")
    meanings = {
        name.strip(): text.strip()
        for part in told.split("; ")
        for names, _, text in [part.partition(":")]
        for name in names.split(",")
    }
    return meanings[field.name]


def kind_of(field: Field) -> str:
    kind = bare(field.type)
    if Stated in get_args(kind):
        return FIGURE
    if kind is Protection:
        return ", ".join(f"`{level.label}`" for level in Protection if level)
    if get_origin(kind) is Literal:
        return ", ".join(f"`{word}`" for word in get_args(kind))
    if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
        return "list of " + ", ".join(f"`{word}`" for word in get_args(get_args(kind)[0]))
    if get_origin(kind) is tuple:
        return f"list of {_element(get_args(kind)[0])}"
    if get_origin(kind) is Mapping:
        name, value = get_args(kind)
        element = get_args(value)[0] if get_origin(value) is tuple else value
        return f"table of {'lists of ' if element is not value else ''}{_element(element)} by {WORDS[name]}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ", ".join(f"`{word.value}`" for word in kind)
    return WORDS[kind] + _bounds(field)


def _element(kind: Any) -> str:
    """What a list or a table of plain values holds, in words."""
    if Stated in get_args(kind):
        return FIGURE
    if get_origin(kind) is tuple:
        return f"lists of {_element(get_args(kind)[0])}"
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{word.value}`" for word in kind)
    return WORDS[kind]


def _bounds(field: Field) -> str:
    for note in getattr(field.type, "__metadata__", ()):
        if isinstance(note, msgspec.Meta) and note.ge is not None:
            return f", at least {note.ge}"
        if isinstance(note, msgspec.Meta) and note.gt is not None:
            return f", above {note.gt}"
    return ""


def _default(field: Field) -> str:
    return "" if field.default is MISSING else _spelled(field.default)


def _spelled(value: Any) -> str:
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, Protection):
        return f"`{value.label}`"
    if isinstance(value, tuple):
        return ", ".join(_spelled(item) for item in value)
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return f"`{value.value if isinstance(value, Enum) else value}`"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    ESTATE_PAGE.write_text(estate_page(), encoding="utf-8")
    ANSWERS_PAGE.write_text(answers_page(), encoding="utf-8")
