"""One GET over HTTPS to a server that proves itself by a pinned authority: for documents of an identity provider.

Not the mutual TLS of this product: such a server knows no certificate of ours and hardly ever ML-KEM, so this is the
standard library's TLS, with one CA file for trust, no redirect, no proxy, and bounds on time and size.
"""

from __future__ import annotations

import asyncio
import http.client
import ssl
import time
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from keystrand.core.errors import BadRequest, ConfigError, PeerUnavailable

BODY_BYTES_MAX: Final = 262_144
TIMEOUT_S: Final = 5.0


def origin_of(url: str) -> tuple[str, int]:
    """Host and port of an https URL without user, query or fragment. Raises BadRequest."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 443
    except ValueError:
        raise BadRequest(f"{url!r} is not a URL") from None
    if parts.scheme != "https" or not host or parts.username or parts.query or parts.fragment or not url.isascii():
        raise BadRequest(f"{url!r} is not https://HOST[:PORT]/PATH")
    return host, port


async def fetch(url: str, trust: Path, *, timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of a 200. Raises PeerUnavailable, BadRequest, ConfigError."""
    origin_of(url)
    return await asyncio.to_thread(_get, url, _context(trust), time.monotonic() + timeout_s)


def _context(trust: Path) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(trust))  # with a file, the system's authorities are not loaded
    except (OSError, ssl.SSLError) as problem:
        raise ConfigError(f"cannot be read as CA certificates: {problem}", path=str(trust)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _get(url: str, context: ssl.SSLContext, until_s: float) -> bytes:
    host, port = origin_of(url)
    timeout_s = max(0.1, until_s - time.monotonic())
    connection = http.client.HTTPSConnection(host, port, timeout=timeout_s, context=context)
    try:
        connection.request("GET", urlsplit(url).path or "/", headers={"Accept": "application/json"})
        answer = connection.getresponse()
        body = _read(answer, until_s)
    except (OSError, http.client.HTTPException) as problem:
        raise PeerUnavailable(f"{host}:{port} cannot be asked: {str(problem) or type(problem).__name__}") from None
    finally:
        connection.close()
    if answer.status != 200:
        raise PeerUnavailable(f"{host}:{port} answered {answer.status} for {urlsplit(url).path}")
    return body


def _read(answer: http.client.HTTPResponse, until_s: float) -> bytes:
    body = bytearray()
    while piece := answer.read1(65_536):
        body += piece
        if len(body) > BODY_BYTES_MAX or time.monotonic() > until_s:
            raise http.client.HTTPException("the answer is too long, or comes too slowly")
    return bytes(body)
