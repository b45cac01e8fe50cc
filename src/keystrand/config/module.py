"""What `module.toml` may say: one end of a simulated QKD link.

Source, fibre, detector and distillation are the dataclasses of `qkd.profile`, so figures and checks exist once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from keystrand.config.fields import alike
from keystrand.config.schema import Log, Tls
from keystrand.config.section import Section
from keystrand.config.values import Address
from keystrand.qkd.profile import Coexistence, Detector, Distillation, Fibre, FreeSpace, LinkProfile, Source


class Module(Section, frozen=True, kw_only=True):
    """Which end of which link this is."""

    link: Annotated[str, Meta(description="name of the link, the same at both ends and at both KMEs")]
    role: Annotated[Literal["transmitter", "receiver"], Meta(description="which end; the other end is the other one")]
    module_id: Annotated[str, Meta(description="ID of this module, as in its certificate")]
    state_dir: Annotated[Path, Meta(description="directory of its state; made if missing")]
    start_key_file: Annotated[
        Path, Meta(description="secret that both ends share from the start and that authenticates their first block")
    ]


class Channel(Section, frozen=True, kw_only=True):
    """One end listens, the other connects: state exactly one of the two."""

    listen: Annotated[Address | None, Meta(description="host:port to listen on")] = None
    connect: Annotated[Address | None, Meta(description="host:port of the other end")] = None


class OwnKme(Section, frozen=True, kw_only=True):
    """The KME that takes the blocks of this module."""

    address: Annotated[Address, Meta(description="host:port of its device interface")]
    kme_id: Annotated[str, Meta(description="its ID, as in its certificate")]


class ModuleConfig(Section, frozen=True, kw_only=True):
    """A whole `module.toml`."""

    module: Module
    classical: Channel
    quantum: Channel
    kme: OwnKme
    tls: Tls
    source: Source = Source()
    fibre: Fibre = Fibre()
    detector: Detector = Detector()
    distillation: Distillation = Distillation()
    coexistence: Coexistence = Coexistence()
    free_space: FreeSpace | None = None
    log: Log = Log()

    @property
    def profile(self) -> LinkProfile:
        return alike(LinkProfile, self)
