"""Read the operator's files: parse, type, cross-check, and say each fault with its line."""

from __future__ import annotations

import re
import stat
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from keystrand.config.checks import check_module, check_site
from keystrand.config.estate import check_estate, rooted
from keystrand.config.lines import index_lines, line_of
from keystrand.config.linkprofile import ProfileFile, check_profile, path_of, unsourced
from keystrand.config.module import ModuleConfig
from keystrand.config.network import NetworkConfig, check_network
from keystrand.config.reading import Fault, Reader, spell
from keystrand.config.schema import SiteConfig
from keystrand.config.vendors import check_answers
from keystrand.core.errors import ConfigError
from keystrand.plan.answers import Answers
from keystrand.plan.estate import Estate

NO_SITE = (
    "stand in the site's folder, or name its file by --config or KEYSTRAND_CONFIG; a new one: keystrand site init NAME"
)

T = TypeVar("T")
Check = Callable[[Any, float], Iterator[Fault]]  # of a configuration of type T, at a Unix time


def load_site(path: Path | str) -> SiteConfig:
    """The site of this file. Raises ConfigError for its first fault; `site_faults` lists all."""
    return _loaded(Path(path), SiteConfig, check_site)


def site_faults(path: Path | str) -> list[ConfigError]:
    """Every fault of a site's file, in the order of its lines; empty where it is sound."""
    return _read(Path(path), SiteConfig, check_site)[1]


def load_module(path: Path | str) -> ModuleConfig:
    """The QKD module of this file. Raises ConfigError for its first fault."""
    return _loaded(Path(path), ModuleConfig, check_module)


def module_faults(path: Path | str) -> list[ConfigError]:
    """Every fault of a module's file, in the order of its lines; empty where it is sound."""
    return _read(Path(path), ModuleConfig, check_module)[1]


def load_network(path: Path | str) -> NetworkConfig:
    """The network of this file. Raises ConfigError for its first fault."""
    return _loaded(Path(path), NetworkConfig, check_network)


def network_faults(path: Path | str) -> list[ConfigError]:
    """Every fault of a network's file, in the order of its lines; empty where it is sound."""
    return _read(Path(path), NetworkConfig, check_network)[1]


def load_estate(path: Path | str) -> Estate:
    """The estate of this file. Raises ConfigError for its first fault."""
    folder = Path(path).absolute().parent
    return rooted(_loaded(Path(path), Estate, lambda estate, _: check_estate(estate, folder)), folder)


def estate_faults(path: Path | str) -> list[ConfigError]:
    """Every fault of an estate's file, in the order of its lines; empty where it is sound."""
    folder = Path(path).absolute().parent
    return _read(Path(path), Estate, lambda estate, _: check_estate(estate, folder))[1]


def load_answers(path: Path | str) -> Answers:
    """What vendors answered, by this file. Raises ConfigError for its first fault."""
    folder = Path(path).absolute().parent
    return _loaded(Path(path), Answers, lambda answers, _: check_answers(answers, folder))


def load_profile(name: str) -> ProfileFile:
    """The link profile of this name or, where it ends in .toml, of this file. Raises ConfigError for its first fault."""
    path = path_of(name)

    def check(file: ProfileFile, now_s: float) -> Iterator[Fault]:
        yield from unsourced(tomllib.loads(path.read_text("utf-8")))
        yield from check_profile(file, now_s)

    return _loaded(path, ProfileFile, check)


def _loaded(path: Path, cls: type[T], check: Check) -> T:
    config, faults = _read(path, cls, check)
    if config is None or faults:
        raise faults[0]
    return config


def _read(path: Path, cls: type[T], check: Check) -> tuple[T | None, list[ConfigError]]:
    try:
        text = path.read_text("utf-8")
        raw = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        hint = NO_SITE if cls is SiteConfig and isinstance(error, FileNotFoundError) else None
        return None, [ConfigError(f"cannot be read: {reason}", path=str(path), hint=hint)]
    except tomllib.TOMLDecodeError as error:
        return None, [_syntax_error(path, str(error))]
    reader = Reader(path.absolute().parent)
    config = reader.table(cls, raw, ())
    if config is None:
        return None, _placed(path, text, reader.faults)
    elsewhere = list(_guarded(path, cls))
    if isinstance(config, SiteConfig):
        config = _sourced(config, path, text)
        config, faults = _with_network(config)
        elsewhere += faults
    return config, _placed(path, text, list(check(config, time.time()))) + elsewhere


def _guarded(path: Path, cls: type) -> Iterator[ConfigError]:
    """What says who may draw keys, and whom to trust, is not for anybody to change."""
    if cls in (SiteConfig, ModuleConfig, NetworkConfig) and path.stat().st_mode & stat.S_IWOTH:
        yield ConfigError("anybody may change this file", path=str(path), hint=f"chmod o-w {path}")


def _sourced(config: Any, path: Path, text: str) -> Any:
    """With the place of each policy entry, so that a verdict can name the rule that it rests on."""
    lines = index_lines(text)
    entries = tuple(
        msgspec.structs.replace(entry, source=f"{path}:{line_of(lines, ('policy', index))}")
        for index, entry in enumerate(config.policy)
    )
    return msgspec.structs.replace(config, policy=entries)


def _with_network(config: Any) -> tuple[Any, list[ConfigError]]:
    """With the network that [relay] names, and the faults of that file."""
    if config.relay is None:
        return config, []
    network, faults = _read(config.relay.network, NetworkConfig, check_network)
    return msgspec.structs.replace(config, network=network), faults


def _syntax_error(path: Path, message: str) -> ConfigError:
    place = re.search(r" \(at line (\d+), column (\d+)\)$", message)
    line = int(place[1]) if place else 0
    return ConfigError(f"not TOML: {message}", path=str(path), line=line)


def _placed(path: Path, text: str, faults: list[Fault]) -> list[ConfigError]:
    lines = index_lines(text) if faults else {}
    found = sorted(((line_of(lines, fault.where), fault) for fault in faults), key=lambda pair: pair[0])
    return [
        ConfigError(f"{spell(fault.where)} {fault.message}", path=str(path), line=line, hint=fault.hint or None)
        for line, fault in found
    ]
