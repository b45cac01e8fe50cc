"""What a device has to be told, whatever its make. No secret is in it: names, addresses and times."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Final, Literal

from keystrand.core.errors import ConfigError

Interface = Literal["014", "SKIP"]
PLAIN: Final = re.compile(r"[A-Za-z0-9._:@/+-]{1,200}")
TO_FILL_IN: Final = "FILL-IN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """One end of a tunnel, as the device there needs it. Raises ConfigError for what could mean something to a device's parser.

    sae, peer_sae: with SKIP the system IDs that stand for them. rotate_s: how often a fresh key is wanted.
    """

    tunnel: str
    sae: str
    peer_sae: str
    kme_host: str
    kme_port: int
    rotate_s: float
    local_address: str = TO_FILL_IN
    remote_address: str = TO_FILL_IN
    local_id: str = TO_FILL_IN
    remote_id: str = TO_FILL_IN
    local_networks: tuple[str, ...] = ()
    remote_networks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for text in value if isinstance(value, tuple) else (value,):
                if isinstance(text, str) and not PLAIN.fullmatch(text):
                    hint = "use letters, digits and . _ : @ / + - only for what a device is told"
                    raise ConfigError(f"{field.name} cannot be written for a device: {text!r}", hint=hint)

    def lifetime_s(self, lowest_s: int, highest_s: int) -> int:
        """How long an IKE_SA may live: a fresh key comes with the next one."""
        return max(lowest_s, min(highest_s, round(self.rotate_s)))

    @property
    def url(self) -> str:
        host = f"[{self.kme_host}]" if ":" in self.kme_host else self.kme_host
        return f"https://{host}:{self.kme_port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Make:
    """One make of devices. comment: how a line is marked as one. source: the maker's public documentation."""

    title: str
    interface: Interface
    comment: str
    source: str
    lines: Callable[[Sheet], list[str]]


def render(make: Make, sheet: Sheet) -> str:
    """The settings, headed by what is not known about them."""
    head = [
        f"{make.title}: tunnel {sheet.tunnel}, {sheet.sae} to {sheet.peer_sae}",
        f"Keys: {'ETSI GS QKD 014' if make.interface == '014' else 'SKIP'} from {sheet.kme_host} port {sheet.kme_port}",
        f"Written from {make.source}.",
        "NOT TESTED ON THE DEVICE. Read it against the manual of your release before you enter it.",
        f"Secrets are not in here; replace each {TO_FILL_IN}.",
    ]
    return "\n".join([*(f"{make.comment} {line}" for line in head), *make.lines(sheet)]) + "\n"
