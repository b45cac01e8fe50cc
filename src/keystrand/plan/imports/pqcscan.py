"""JSON of pqcscan. A list that is null was not tested, an empty one was tested without a find; an error is no answer at all."""

from __future__ import annotations

import msgspec

from keystrand.plan.estate import Family, Protocol
from keystrand.plan.fact import Answer, Source
from keystrand.plan.imports.found import Found, Names, day, decode, shortened


class _Spec(msgspec.Struct):
    host: str
    port: int


class _Result(msgspec.Struct):
    targetspec: _Spec
    error: str | None = None
    pqc_supported: bool | None = None
    pqc_algos: list[str] | None = None
    hybrid_algos: list[str] | None = None
    nonpqc_algos: list[str] | None = None


class _Scan(msgspec.Struct):
    results: list[dict[str, _Result]]
    version: str = ""
    end_time: str = ""


FAMILIES = {"Ssh": Family.SSH, "Tls": Family.TLS}


def read(data: bytes, file: str) -> Found:
    """Raises NotReadable."""
    scan = decode(data, _Scan, "a report of pqcscan")
    source = Source(what=file, tool="pqcscan", version=scan.version, dated=day(scan.end_time))
    names, remarks, endpoints = Names(), [], {}
    for kind, result in (pair for each in scan.results for pair in each.items()):
        at = f"{result.targetspec.host}:{result.targetspec.port}"
        if result.error:
            remarks.append(f"{at}: {result.error}; all of it stays unknown")
        if kind in FAMILIES:
            endpoints[names.of((kind, at), at)] = _protocol(FAMILIES[kind], at, result, source)
    return Found("pqcscan", endpoints=endpoints, remarks=shortened(remarks))


def _protocol(family: Family, at: str, result: _Result, source: Source) -> Protocol:
    if result.error or result.pqc_supported is None:
        return Protocol(name=family, endpoint=at, source=source)
    return Protocol(
        name=family,
        supported=_supported(result),
        pqc=Answer.YES if result.pqc_supported else Answer.NO,
        endpoint=at,
        source=source,
    )


def _supported(result: _Result) -> tuple[str, ...] | None:
    """Only where classical groups were tested too: half a list would say that there is no way around."""
    if result.nonpqc_algos is None or result.pqc_algos is None:
        return None
    return (*result.pqc_algos, *(result.hybrid_algos or ()), *result.nonpqc_algos)
