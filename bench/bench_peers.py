"""Any pair of ETSI GS QKD 014 servers by address, under the load that Keystrand is measured with (bench/load014.py).

`python -m bench.bench_peers --url https://127.0.0.1:8010 --cert a.pem --key a.key --sae A --kme KME-A --to-url … --ca ca.pem`
draws at one end, picks up at the other and compares. `--ours` measures a fresh Keystrand pair in the same way first. TLS is
what the server offers, from 1.2 on; the server's certificate must name its host. A request that is not answered within
`--patience` seconds counts as refused with status 0, and the run goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

from bench.bench_main_job import running
from bench.load014 import LoadResult, load, percentile
from bench.report import Row, publish
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import KeystrandError
from keystrand.lab.pair import found_pair
from keystrand.net.http_client import HttpClient
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.testing.conformance.target import Response


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """An SAE and the server that serves it."""

    url: str
    sae: str
    kme: str  # common name of the server's certificate
    cert: Path
    key: Path
    ca: Path


@dataclass(frozen=True, slots=True)
class Silence:
    """What stands in for an answer that did not come."""

    status: int = 0
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


class Patient:
    """A caller that outlives a server that hangs or hangs up."""

    def __init__(self, end: End, connections: int, patience_s: float) -> None:
        policy = TlsPolicy(minimum="1.2", require_pqc_group=False)
        contexts = TlsContexts(TlsFiles(end.cert, end.key, end.ca), policy, rule="cn")
        place = urlsplit(end.url)
        assert place.hostname is not None
        self._client = HttpClient(
            place.hostname,
            place.port or 443,
            contexts,
            expect=(None, end.kme),
            connections_max=connections,
            timeout_s=patience_s,
        )

    async def request(self, method: str, path: str, body: bytes | None = None, /) -> Response:
        try:
            return await self._client.request(method, path, body)
        except KeystrandError as error:
            print(f"{path}: {error}", file=sys.stderr)
            return Silence()

    async def close(self) -> None:
        await self._client.close()

    @property
    def group(self) -> str:
        return self._client.peer.group if self._client.peer is not None else ""


async def measure(ends: tuple[End, End], options: argparse.Namespace, connections: int) -> tuple[LoadResult, str]:
    callers = [Patient(end, connections, options.patience) for end in ends]
    try:
        result = await load(
            *callers,
            initiator_id=ends[0].sae,
            responder_id=ends[1].sae,
            pairs=options.pairs,
            connections=connections,
            size_bits=options.size,
        )
        return result, callers[0].group
    finally:
        for caller in callers:
            await caller.close()


def rows_of(name: str, connections: int, result: LoadResult) -> list[Row]:
    refused = sum(result.refusals.values())
    lines = "1 line" if connections == 1 else f"{connections} lines"
    return [
        Row(name=f"{name}, {lines}: enc+dec pairs", value=result.pairs_per_s, unit="1/s"),
        Row(name=f"{name}, {lines}: enc_keys p50", value=1e3 * percentile(result.enc_s, 0.5), unit="ms"),
        Row(name=f"{name}, {lines}: enc_keys p99", value=1e3 * percentile(result.enc_s, 0.99), unit="ms"),
        Row(name=f"{name}, {lines}: dec_keys p99", value=1e3 * percentile(result.dec_s, 0.99), unit="ms"),
        Row(name=f"{name}, {lines}: refused or unanswered", value=refused, unit="count"),
        Row(name=f"{name}, {lines}: mismatched keys", value=result.mismatches, unit="count"),
    ]


@asynccontextmanager
async def ours(options: argparse.Namespace) -> AsyncIterator[tuple[End, End]]:
    """A fresh pair of this project's."""
    folder = Path(tempfile.mkdtemp(prefix="keystrand-bench-"))
    try:
        pair = found_pair(folder / "pair")
        configs = {name: load_site(file) for name, file in pair.site_files.items()}
        async with running(pair, configs, 2 * options.pairs * options.size * len(options.connections)):
            yield _end(configs["alpha"]), _end(configs["bravo"])
    finally:
        shutil.rmtree(folder)


def _end(config: SiteConfig) -> End:
    gateway = config.gateway
    assert gateway is not None
    return End(
        url=f"https://127.0.0.1:{config.etsi014.listen.port}",
        sae=gateway.sae,
        kme=config.site.kme_id,
        cert=gateway.certificate,
        key=gateway.private_key,
        ca=config.tls.trust,
    )


def ends_of(options: argparse.Namespace) -> tuple[End, End]:
    here = End(url=options.url, sae=options.sae, kme=options.kme, cert=options.cert, key=options.key, ca=options.ca)
    there = End(
        url=options.to_url,
        sae=options.to_sae,
        kme=options.to_kme,
        cert=options.to_cert,
        key=options.to_key,
        ca=options.to_ca or options.ca,
    )
    return here, there


async def run(options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    if options.ours:
        async with ours(options) as ends:
            rows += await _all("keystrand", ends, options)
    if options.url:
        rows += await _all(options.name, ends_of(options), options)
    return rows


async def _all(name: str, ends: tuple[End, End], options: argparse.Namespace) -> list[Row]:
    rows: list[Row] = []
    for connections in options.connections:
        result, group = await measure(ends, options, connections)
        print(f"{name}: keys of the connection agreed with {group or 'an unnamed group'}", file=sys.stderr)
        rows += rows_of(name, connections, result)
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", action="store_true", help="measure a fresh Keystrand pair first")
    parser.add_argument("--name", default="peer", help="what to call the other one in the table")
    for prefix, whose in (("", "the drawing SAE"), ("to-", "the SAE that picks up")):
        parser.add_argument(f"--{prefix}url", default="", help=f"https://host:port that serves {whose}")
        parser.add_argument(f"--{prefix}sae", default="", help=f"ID of {whose}")
        parser.add_argument(f"--{prefix}kme", default="", help="common name in that server's certificate")
        parser.add_argument(f"--{prefix}cert", type=Path, help=f"certificate of {whose}, PEM")
        parser.add_argument(f"--{prefix}key", type=Path, help="its private key, PEM")
        parser.add_argument(f"--{prefix}ca", type=Path, help="CA that vouches for that server, PEM")
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--size", type=int, default=256, help="bits of a key")
    parser.add_argument("--patience", type=float, default=5.0, help="seconds before a request counts as unanswered")
    options = parser.parse_args()
    if not (options.ours or options.url):
        parser.error("name a server with --url, or --ours")
    import uvloop

    rows = uvloop.run(run(options))
    rows.append(Row(name="load average of the machine", value=os.getloadavg()[0], unit=""))
    return 0 if publish("peers", rows) else 1


if __name__ == "__main__":
    sys.exit(main())
