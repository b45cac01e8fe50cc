"""Made-up events and gauges that drive a status page in the page's own test; nothing of the product uses them.

`python tests/integration/status_demo.py 8099` serves the page for looking at it.
"""

from __future__ import annotations

import math
import sys
import time

from keystrand.console.page import status_app
from keystrand.core.events import Event
from keystrand.observe.feed import AuditGauge, Feed, Gauges, LinkGauge, PeerGauge
from keystrand.observe.metrics import Metrics

KEY_ID = "{:02x}2b6c1e-9a4d-4c27-8f10-5d1a7be0c913"


def gauges(step: int, now_s: float, *, up: bool = True) -> Gauges:
    ingested, delivered = 4_000_000 + 9000 * step, 512 * step + 900_000
    ledger = {"ingested": ingested, "reserved": 90_000, "delivered": delivered, "burnt": 24_576, "expired": 120_000}
    ledger["quarantined"] = 260_000
    ledger["available"] = ingested - sum(bits for name, bits in ledger.items() if name != "ingested")
    link = LinkGauge(
        link="alpha-bravo", peer="bravo", state="up" if up else "down", qber=qber(step), skr_bps=skr(step),
        sifted_bps=52_000.0, auth_key_bits=65_536, ledger=ledger, owned_free_bits=ledger["available"] // 2,
        fill_bps=9000.0, drain_bps=4300.0, oldest_block_age_s=412.0,
    )  # fmt: skip
    peer = PeerGauge(
        peer="bravo",
        up=up,
        since_s=now_s - 7260,
        group="X25519MLKEM768" if up else "",
        epoch=7,
        strand_age_s=42.0 + step,
    )
    audit = AuditGauge(size=12_840 + step, last_checkpoint_size=12_800, cosigned_size=12_800, cosigned_at_s=now_s - 12)
    return Gauges(links=(link,), peers=(peer,), audit=audit, cert_expiry_s=80 * 86_400.0)


def qber(step: int) -> float:
    return 0.021 + 0.003 * math.sin(step / 9) + 0.0011 * math.sin(step * 2.7)


def skr(step: int) -> float:
    return 9200 - 900 * math.sin(step / 9) + 260 * math.sin(step * 3.1)


def fill(feed: Feed, metrics: Metrics, *, steps: int = 120) -> None:
    """Two minutes of history that end now."""
    now_s = time.time()

    def emit(kind: str, ago_s: float, **fields: str | int | float | bool) -> None:
        event = Event(kind, now_s - ago_s, fields)
        feed.emit(event)
        metrics.emit(event)

    emit("site.started", 122)
    emit("peer.up", 121, peer="bravo", group="X25519MLKEM768")
    emit("link.up", 120, link="alpha-bravo")
    for step in range(steps):
        block = {"sequence": step, "qber": qber(step), "skr_bps": skr(step), "sifted_bits": 52_000, "secret_bits": 9000}
        emit("link.block", steps - step, link="alpha-bravo", **block)
    emit("strand.renewed", 80, peer="bravo", algorithm="ML-KEM-768")
    for number in range(14):
        pair = {"initiator": "sae-gateway-a", "responder": "sae-gateway-b", "recipient": "sae-gateway-b"}
        emit(
            "key.delivered",
            60 - 4 * number,
            key_id=KEY_ID.format(37 * number % 256),
            size_bits=256,
            protection="hybrid",
            **pair,
        )
    transfer = {"transfer_id": "7c0e4c1a-transfer", "peer": "sae-gateway-b", "bytes_total": 1_073_741_824}
    transfer |= {"direction": "send", "protection": "hybrid", "throughput_bytes_per_s": 412_000_000}
    emit("transfer.started", 8, **transfer)
    for turn in range(1, 9):
        done = turn * 83_886_080
        emit(
            "transfer.rotated",
            8 - turn,
            key_id=KEY_ID.format(53 * turn % 256),
            rotations=turn,
            bytes_done=done,
            **transfer,
        )
    emit("key.refused", 5, sae="sae-lab", other="sae-gateway-b", reason="no policy for this pair")
    emit("audit.checkpoint", 4, size=12_800, head="ab12")
    emit("audit.cosigned", 3, size=12_800, peer="bravo")


def fill_tunnels(feed: Feed) -> None:
    """One as it should be, one below its protection, one of which nothing is heard."""

    def emit(happened: str, ago_s: float, tunnel: str, **said: str | int | float | bool) -> None:
        report = {"sae": "sae-gateway-a", "role": "initiator", "protection": "hybrid", "tunnel": tunnel, **said}
        feed.emit(Event(f"tunnel.{happened}", time.time() - ago_s, report))

    held = {"key_age_s": 31.0, "next_rotation_s": 29.0, "exposure_s": 62.0, "bytes_under_key": 1_804_000_000}
    emit("rotated", 2, "backbone", kind="ipsec", peer_sae="sae-gateway-b", state="up", **held)
    late = {"key_age_s": 95.0, "next_rotation_s": 25.0, "exposure_s": 95.0, "fallback_s": 95.0, "protection": "pqc"}
    emit(
        "fallback",
        1,
        "branch",
        kind="wireguard",
        peer_sae="sae-branch",
        state="fallback",
        reason="pool is empty",
        **late,
    )
    emit("up", 90, "metro", kind="macsec", peer_sae="sae-metro", state="up", key_age_s=4.0)


def main() -> None:
    import asyncio

    import uvicorn

    async def serve() -> None:
        feed, metrics = Feed("alpha"), Metrics()
        fill(feed, metrics)
        fill_tunnels(feed)
        app = status_app(feed, metrics, site="alpha")
        server = uvicorn.Server(uvicorn.Config(app, port=int(sys.argv[1]), log_level="warning"))
        running = asyncio.create_task(server.serve())
        step = 120
        while not running.done():
            feed.update(gauges(step, time.time()))
            fields = {"link": "alpha-bravo", "qber": qber(step), "skr_bps": skr(step)}
            feed.emit(Event("link.block", time.time(), fields))
            step += 1
            await asyncio.sleep(1)

    asyncio.run(serve())


if __name__ == "__main__":
    main()
