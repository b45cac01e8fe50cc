"""Profiles of links and devices as TOML files: those that come with the program, and the user's own.

Every figure of a profile that a file states has a line in its table [provenance], which says whether it is measured,
published, or assumed, and where that stands; a file without it is refused. A figure that no file states is the default of the
configuration reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Meta

from keystrand.config.fields import alike, fields_of
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.core.errors import ConfigError
from keystrand.qkd.profile import Coexistence, Detector, Distillation, Fibre, FreeSpace, LinkProfile, Source
from keystrand.qkd.rate_models import EntangledPairs, GaussianStates, TwinField

WORDS: Final = ("measured: ", "published: ", "assumed: ")


class Protocol(StrEnum):
    """How a link makes its key. Only decoy-state BB84 can be run here; the others are rate models for planning."""

    BB84 = "bb84-decoy"
    BBM92 = "bbm92"
    GG02 = "gg02"
    TWIN_FIELD = "twin-field"


class ProfileFile(Section, frozen=True, kw_only=True):
    """A whole profile."""

    title: Annotated[str, Meta(description="what it describes, in one line")]
    protocol: Annotated[Protocol, Meta(description="how the link makes its key")]
    detector_class: Annotated[str, Meta(description="word for the detectors: ingaas, snspd, ...")]
    provenance: Annotated[
        Mapping[str, str], Meta(description="for every figure: measured, published or assumed: where")
    ]
    source: Source = Source()
    fibre: Fibre = Fibre()
    detector: Detector = Detector()
    distillation: Distillation = Distillation()
    coexistence: Coexistence = Coexistence()
    free_space: FreeSpace | None = None
    pairs: EntangledPairs | None = None
    gaussian: GaussianStates | None = None
    twin: TwinField | None = None

    @property
    def profile(self) -> LinkProfile:
        return alike(LinkProfile, self)

    @property
    def model(self) -> EntangledPairs | GaussianStates | TwinField | None:
        """For a protocol that is planned with only."""
        return self.pairs or self.gaussian or self.twin


MODELS: Final = {Protocol.BBM92: "pairs", Protocol.GG02: "gaussian", Protocol.TWIN_FIELD: "twin"}


def names() -> list[str]:
    """Of all profiles that come with the program."""
    folder = resources.files("keystrand.qkd") / "profiles"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def path_of(name: str) -> Path:
    """Of a profile by name, or of the user's file. Raises ConfigError for neither."""
    if name.endswith(".toml"):
        return Path(name)
    if name not in names():
        raise ConfigError(
            f"there is no profile {name!r}", hint=f"one of {', '.join(names())}, or a path ending in .toml"
        )
    return Path(str(resources.files("keystrand.qkd") / "profiles" / f"{name}.toml"))


def check_profile(file: ProfileFile, now_s: float) -> Iterator[Fault]:
    """Every fault beyond those of single fields."""
    try:
        _ = file.profile
    except ValueError as error:
        yield Fault(("distillation", "proof"), str(error))
    wanted = MODELS.get(file.protocol)
    for name in MODELS.values():
        if (getattr(file, name) is not None) != (name == wanted):
            yield Fault(
                ("protocol",), f"{file.protocol} {'needs' if name == wanted else 'has no use for'} a table [{name}]"
            )
    for figure, where in file.provenance.items():
        if not where.startswith(WORDS):
            yield Fault(("provenance", figure), "says not how sure it is", f"begin with {', '.join(WORDS)}")
        if not _exists(figure):
            yield Fault(("provenance", figure), "is no figure of a profile")


def unsourced(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """Figures that a parsed file states without saying whence."""
    for table, figures in raw.items():
        if table == "provenance" or not isinstance(figures, dict):
            continue
        for name in figures:
            if f"{table}.{name}" not in raw.get("provenance", {}):
                yield Fault((table, name), "has no line in [provenance]", f'add "{table}.{name}" = "published: …"')


def _exists(figure: str) -> bool:
    table, _, name = figure.partition(".")
    tables = {f.key: f.type for f in fields_of(ProfileFile)}
    if table not in tables:
        return False
    kinds = [k for k in (tables[table], *getattr(tables[table], "__args__", ())) if hasattr(k, "__dataclass_fields__")]
    return any(name in kind.__dataclass_fields__ for kind in kinds)
