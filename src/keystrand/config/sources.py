"""`[sources.LINK]`: a link that is fed by makers' devices, or by files, instead of a module of ours."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from msgspec import Meta

from keystrand.config.dial import Dial, check_dial
from keystrand.config.faults import named
from keystrand.config.fields import alike
from keystrand.config.lines import Where
from keystrand.config.reading import Fault
from keystrand.config.section import Section
from keystrand.core.limits import Limits
from keystrand.sources.capabilities import Capabilities, apart
from keystrand.sources.device import Kind

if TYPE_CHECKING:
    from keystrand.config.schema import SiteConfig

_URI: Final = re.compile(r"[\x21-\x7e]{1,512}")


class DeviceEntry(Section, frozen=True, kw_only=True):
    """What a device can do, as its maker states it."""

    maker: Annotated[str, Meta(description="who makes it", min_length=1, max_length=64)]
    model: Annotated[str, Meta(description="its model, and its software's version where that matters")] = ""
    interfaces: Annotated[tuple[Kind, ...], Meta(description="what it delivers key by", min_length=1)]
    key_bits_min: Annotated[int, Meta(description="its shortest key", ge=8)] = 256
    key_bits_max: Annotated[int, Meta(description="its longest key", ge=8)] = 256
    key_ids: Annotated[
        Literal["uuid", "place", "file-name"],
        Meta(description="what names a key at both ends: a UUID, a place in a stream, a file name"),
    ] = "uuid"
    trust: Annotated[
        Literal["simulated", "uncertified", "evaluated", "certified"],
        Meta(description="how far anybody has looked at it; stands in the audit log with each of its blocks"),
    ] = "uncertified"
    rate_bps: Annotated[int, Meta(description="secret bits a second that it is sold for; 0: not stated", ge=0)] = 0

    def capabilities(self) -> Capabilities:
        return alike(Capabilities, self)


class Etsi014Source(Dial, frozen=True, kw_only=True):
    """A device or KME that serves ETSI GS QKD 014. It is asked as the SAE that `certificate` names."""

    far_sae: Annotated[str, Meta(description="SAE ID under which the far site asks its end of the device")]
    method: Annotated[
        Literal["post", "get"], Meta(description="get: one key per request, for devices that lack POST")
    ] = "post"


class Etsi004Source(Dial, frozen=True, kw_only=True):
    """A device or KME that streams key by ETSI GS QKD 004. It is asked as the SAE that `certificate` names."""

    uri: Annotated[str, Meta(description="URI of the SAE that this site is to the device, such as qkd://sae@site")]
    far_uri: Annotated[str, Meta(description="URI of the SAE that the far site is")]
    framing: Annotated[
        Literal["2.1.1", "1.0.1"], Meta(description="layout of the messages, by the version that stands in them")
    ] = "2.1.1"
    min_bps: Annotated[
        int, Meta(description="lowest key rate to ask for, as the device wants it; 0: no wish", ge=0)
    ] = 0
    max_bps: Annotated[int, Meta(description="highest key rate to ask for; 0: no wish", ge=0)] = 0
    jitter_bps: Annotated[int, Meta(description="how much the rate may vary; 0: no wish", ge=0)] = 0
    ttl_s: Annotated[int, Meta(description="how long the device shall keep a chunk; 0: no wish", ge=0)] = 0


class FilesSource(Section, frozen=True, kw_only=True):
    """Key files NAME.qkey, dropped at both ends under the same names, used in the order of their names, then wiped."""

    folder: Annotated[Path, Meta(description="where they are dropped; nobody but this user may write there")]


class PushSource(Section, frozen=True, kw_only=True):
    """A device that pushes its keys to the listener of [push]."""

    module: Annotated[str, Meta(description="ID of the device, as in its certificate")]
    waiting_bits_max: Annotated[int, Meta(description="so much may wait for the far end", ge=1024)] = 4_194_304


SETTINGS: Final[dict[str, type[Section]]] = {
    "etsi014": Etsi014Source,
    "etsi004": Etsi004Source,
    "files": FilesSource,
    "push": PushSource,
}


class SourceEntry(Section, frozen=True, kw_only=True):
    """What feeds a link of [links] that has no module. Beside it stands a table [sources.LINK.KIND]."""

    kind: Annotated[Kind, Meta(description="interface that the keys come by; the far end's source has the same")]
    key_bits: Annotated[int, Meta(description="length of each key of the device; of each file", ge=8)] = 256
    keys_per_block: Annotated[int, Meta(description="so many at most are agreed on at once", ge=1, le=1024)] = 64
    fill_bits: Annotated[int, Meta(description="the link's pool is filled up to so many bits", ge=1024)] = 4_194_304
    patience_s: Annotated[
        float, Meta(description="how long the device may take to have a key that the far end has", gt=0, le=50)
    ] = 10.0
    device: Annotated[DeviceEntry, Meta(description="table [sources.LINK.device]")]
    far_device: Annotated[
        DeviceEntry | None, Meta(description="table [sources.LINK.far_device]: stated, the two are compared at start")
    ] = None
    settings: Annotated[Any, Meta(extra={"internal": True})] = None

    @staticmethod
    def further(raw: dict[str, object]) -> tuple[str, type[Any]]:
        """Name and type of the table that the kind brings along. Raises ValueError that says what to write."""
        kind = str(raw.get("kind"))
        if kind not in SETTINGS:
            raise ValueError(f"is {kind!r}, none of {', '.join(map(repr, SETTINGS))}")
        return kind, SETTINGS[kind]

    @property
    def label(self) -> str:
        """What stands as the source of its blocks in audit records."""
        named = " ".join(f"{self.device.maker} {self.device.model}".split())
        return f"{self.kind}: {named}, {self.device.trust}"


def check_sources(config: SiteConfig) -> Iterator[Fault]:
    """Links that nothing feeds, or two; devices that cannot serve what is asked of them."""
    for name, link in config.links.items():
        if (link.module is None) == (name not in config.sources):
            both = "both module and" if link.module else "neither module nor"
            yield Fault(("links", name), f"has {both} [sources.{name}]", "a link is fed by one of the two")
    for name, source in config.sources.items():
        where: Where = ("sources", name)
        if name not in config.links:
            yield Fault(where, f"{name} is no link of [links]", f"add [links.{name}]")
        if config.site.store is not None and source.kind == "files":
            words = "files lie on one machine, and replicas on others would not find what the far end names"
            yield Fault(
                (*where, "kind"), words, "push the keys, or serve them by etsi014; or run the site without `store`"
            )
        yield from _source(source, where, config.limits)
        yield from _settings(config, source.settings, (*where, source.kind))
        yield from _on_paper(config, name, source)


def _on_paper(config: SiteConfig, name: str, source: SourceEntry) -> Iterator[Fault]:
    """Whether the devices that the network's file puts at the ends of this link can serve this source and the far one."""
    network, link, here = config.network, config.links.get(name), config.site.name
    for hop in network.hops if network is not None and link is not None else ():
        if hop.devices is None or link is None or set(hop.ends) != {here, link.peer}:
            continue
        for site, device in zip(hop.ends, hop.devices, strict=True):
            entry, place = (
                network.devices.get(device) if network is not None else None,
                "here" if site == here else f"at {site}",
            )
            for reason in entry.capabilities().lacks(source.kind, source.key_bits) if entry is not None else ():
                yield Fault(("sources", name, "kind"), f"the network's file has {device} {place}, which {reason}")


def _source(source: SourceEntry, where: Where, limits: Limits) -> Iterator[Fault]:
    if source.key_bits % 8:
        yield Fault((*where, "key_bits"), f"{source.key_bits} is not a multiple of 8")
    if source.key_bits * source.keys_per_block > limits.device_block_size_bits_max:
        yield Fault((*where, "keys_per_block"), "a block would be over limits.device_block_size_bits_max")
    here = source.device.capabilities()
    for reason in here.lacks(source.kind, source.key_bits):
        yield Fault((*where, "device"), f"{source.device.maker} {source.device.model}: {reason}".replace(" :", ":"))
    if source.far_device is not None:
        far = source.far_device.capabilities()
        reasons = [*apart(here, far)] or [
            f"the far device {reason}" for reason in far.lacks(source.kind, source.key_bits)
        ]
        for reason in reasons:
            yield Fault(
                (*where, "far_device"), reason, "both devices of a link deliver by its kind, keys of one length"
            )


def _settings(config: SiteConfig, settings: object, where: Where) -> Iterator[Fault]:
    if isinstance(settings, Dial):
        yield from check_dial(settings, where)
    if isinstance(settings, Etsi014Source):
        yield from named(settings.far_sae, (*where, "far_sae"), what="SAE ID")
    elif isinstance(settings, Etsi004Source):
        for field in ("uri", "far_uri"):
            if not _URI.fullmatch(getattr(settings, field)):
                yield Fault((*where, field), "is not a URI of at most 512 characters")
    elif isinstance(settings, FilesSource):
        yield from _folder(settings.folder, (*where, "folder"))
    elif isinstance(settings, PushSource) and config.push is None:
        yield Fault(where, "nothing listens for what the device pushes", "add a table [push]")


def _folder(folder: Path, where: Where) -> Iterator[Fault]:
    if not folder.is_dir():
        yield Fault(where, f"{folder}: no such directory", f"mkdir -m 700 {folder}")
    elif stat.S_IMODE(folder.stat().st_mode) & 0o022:
        yield Fault(where, f"{folder}: others may drop files there", f"chmod 700 {folder}")
