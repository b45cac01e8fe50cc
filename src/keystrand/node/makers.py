"""The device that an entry of [sources] describes, with the client that its interface needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from keystrand.config.dial import Dial
from keystrand.config.sources import Etsi004Source, Etsi014Source, FilesSource, PushSource, SourceEntry
from keystrand.core.events import Sink
from keystrand.core.limits import Limits
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.sources.capabilities import departs
from keystrand.sources.device import Device
from keystrand.sources.etsi004 import Etsi004Device
from keystrand.sources.etsi014 import Etsi014Device
from keystrand.sources.files import SUFFIX, FilesDevice
from keystrand.sources.journal import Journal
from keystrand.sources.push import PushDevice
from keystrand.transport.etsi004 import KeyStreams
from keystrand.wire.etsi004 import Framing, Qos

ANSWER_S: Final = 15.0
CHUNK_WAIT_MS: Final = 2_000  # how long the device may hold a GET_KEY back
FRAMINGS: Final = {"2.1.1": Framing.FORGE, "1.0.1": Framing.FIXED}


def contexts_of(dial: Dial, sink: Sink | None = None) -> TlsContexts:
    """TLS towards a server of somebody else's. Raises ConfigError."""
    policy = TlsPolicy(minimum=dial.minimum, require_pqc_group=dial.require_pqc_group)
    return TlsContexts(TlsFiles(dial.certificate, dial.private_key, dial.trust), policy, rule="cn", sink=sink)


def client_of(dial: Dial, limits: Limits, sink: Sink | None = None) -> HttpClient:
    """Connects on first use."""
    host, port = dial.address.host, dial.address.port
    return HttpClient(
        host, port, contexts_of(dial, sink), expect=dial.expect, limits=limits, connections_max=2, timeout_s=ANSWER_S
    )


async def probe(entry: SourceEntry, limits: Limits) -> tuple[dict[str, object], list[str]]:
    """What the device of this source says of itself, and where that is not enough. No key is drawn.

    By interfaces that say nothing of their device, only whether it is there. Raises KeystrandError where it does not answer.
    """
    settings = entry.settings
    if isinstance(settings, Etsi014Source):
        client = client_of(settings, limits)
        device = Etsi014Device(requester=client, far_sae=settings.far_sae, key_bits=entry.key_bits, number=1)
        try:
            status = await device.status()
        finally:
            await client.close()
        facts = {
            "kme": status.source_kme_id,
            "far_kme": status.target_kme_id,
            "stored_keys": status.stored_keys,
            "key_bits_min": status.key_size_bits_min,
            "key_bits_max": status.key_size_bits_max,
            "keys_per_request_max": status.keys_per_request_max,
            "tls": client.peer.group if client.peer is not None else "",
        }
        number = 1 if settings.method == "get" else entry.keys_per_block
        return facts, list(departs(status, entry.device.capabilities(), entry.key_bits, number))
    if isinstance(settings, Etsi004Source):
        streams = await _connected(settings, contexts_of(settings), limits)
        await streams.close()
        return {"kme": settings.expect[1], "framing": settings.framing}, []
    if isinstance(settings, FilesSource):
        return {"files": sum(1 for _ in settings.folder.glob(f"*{SUFFIX}"))}, []
    return {"waits_for": settings.module}, []


def device_of(
    entry: SourceEntry,
    journal: Journal,
    *,
    leads: bool,
    limits: Limits,
    sink: Sink,
    refused: Callable[[str, str], None],
) -> Device:
    """leads: whether our end draws; refused: told of each file that is set aside, and why. Raises ConfigError."""
    settings, number = entry.settings, entry.keys_per_block
    if isinstance(settings, Etsi014Source):
        client = client_of(settings, limits, sink)
        return Etsi014Device(
            requester=client, far_sae=settings.far_sae, key_bits=entry.key_bits, number=number, method=settings.method
        )
    if isinstance(settings, Etsi004Source):
        return _streams(entry, settings, leads=leads, limits=limits, sink=sink)
    if isinstance(settings, FilesSource):
        return FilesDevice(settings.folder, journal, file_bytes=entry.key_bits // 8, number=number, refused=refused)
    assert isinstance(settings, PushSource), "the schema knows no other kind"
    return PushDevice(journal, bits_max=settings.waiting_bits_max, number=number)


async def _connected(settings: Etsi004Source, contexts: TlsContexts, limits: Limits) -> KeyStreams:
    host, port, framing = settings.address.host, settings.address.port, FRAMINGS[settings.framing]
    return await KeyStreams.connect(host, port, contexts, kme_id=settings.expect[1], limits=limits, framing=framing)


def _streams(entry: SourceEntry, settings: Etsi004Source, *, leads: bool, limits: Limits, sink: Sink) -> Device:
    contexts = contexts_of(settings, sink)

    async def connect() -> KeyStreams:
        return await _connected(settings, contexts, limits)

    source, destination = (settings.uri, settings.far_uri) if leads else (settings.far_uri, settings.uri)
    qos = Qos(
        chunk_bytes=entry.key_bits // 8,
        min_bps=settings.min_bps,
        max_bps=settings.max_bps,
        jitter_bps=settings.jitter_bps,
        timeout_ms=CHUNK_WAIT_MS,
        ttl_s=settings.ttl_s,
    )
    return Etsi004Device(connect, source=source, destination=destination, qos=qos, number=entry.keys_per_block)
