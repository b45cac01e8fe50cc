"""A look at a live end, as anybody who can reach it may take one: no login, no payload, nothing but handshakes.

A TLS server chooses one group of those that it is offered, so each group is offered alone: a handshake shows that it is
accepted, an alert that it is not, and silence shows nothing. Offered all at once, with the hybrid ones first as a current
browser does, the server's choice is what such a client negotiates.
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from OpenSSL import SSL

from keystrand.core.errors import PeerFault, PeerUnavailable
from keystrand.net.blocking import authority
from keystrand.net.tls import CLASSICAL_GROUPS, HYBRID_GROUPS

GROUPS: Final = (
    *HYBRID_GROUPS,
    *("MLKEM512", "MLKEM768", "MLKEM1024"),
    *CLASSICAL_GROUPS,
    *("P-521", "X448", "ffdhe2048", "ffdhe3072", "ffdhe4096", "ffdhe6144", "ffdhe8192"),
)
TIMEOUT_S: Final = 5.0
_READ_BYTES: Final = 16_384
_VERSIONS: Final = {0x0304: "1.3", 0x0303: "1.2", 0x0302: "1.1", 0x0301: "1.0"}
_CIPHERS: Final = b"ALL:@SECLEVEL=0"  # what an old server has is what we came to see; nothing is sent under it


@dataclass(frozen=True, slots=True)
class Handshake:
    """What a server agreed to. group: empty where none was used (RSA key transport). certificate: its own, DER."""

    version: str
    cipher: str
    group: str
    certificate: bytes


@dataclass(frozen=True, slots=True)
class TlsLook:
    """chosen: with all groups on offer; None where no handshake came about. accepted, refused, unclear: of GROUPS."""

    chosen: Handshake | None
    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    unclear: tuple[str, ...]


class SpeaksSsh(PeerFault):
    """The other end began with an SSH banner."""


class Refused(PeerFault):
    """The server answered, and did not agree."""


def look_at_tls(host: str, port: int, timeout_s: float = TIMEOUT_S) -> TlsLook:
    """Some 15 handshakes. Raises PeerUnavailable if nobody answers, SpeaksSsh, or PeerFault for what is no TLS."""
    chosen: Handshake | None = None
    with suppress(Refused):  # which groups it takes, if any, is seen below
        chosen = shake_hands(host, port, GROUPS, timeout_s)
    found: dict[str, list[str]] = {"accepted": [], "refused": [], "unclear": []}
    for group in GROUPS:
        try:
            agreed = shake_hands(host, port, (group,), timeout_s)
            found["accepted" if agreed.group else "refused"].append(group)
        except Refused:
            found["refused"].append(group)
        except (PeerUnavailable, PeerFault):
            found["unclear"].append(group)
    if chosen is None and not found["accepted"]:
        raise PeerFault(f"{authority(host, port)}: no TLS handshake came about")
    return TlsLook(chosen, *(tuple(found[word]) for word in ("accepted", "refused", "unclear")))


def shake_hands(host: str, port: int, groups: tuple[str, ...], timeout_s: float) -> Handshake:
    """One handshake with these groups on offer. Raises Refused, SpeaksSsh, PeerFault or PeerUnavailable."""
    connection = SSL.Connection(_context(groups), None)
    if not _is_address(host):
        connection.set_tlsext_host_name(host.encode("idna"))
    connection.set_connect_state()
    with _Wire(host, port, timeout_s) as wire:
        first = True
        while True:
            try:
                connection.do_handshake()
                break
            except SSL.WantReadError:
                _flush(connection, wire)
            except SSL.Error as error:
                raise _sorted_out(error, host, port) from None
            data = wire.receive()
            if first and data.startswith(b"SSH-"):
                raise SpeaksSsh(f"{authority(host, port)} speaks SSH")
            first = False
            connection.bio_write(data)
        certificate = connection.get_peer_certificate(as_cryptography=True)
        return Handshake(
            version=_VERSIONS.get(connection.get_protocol_version(), connection.get_protocol_version_name()),
            cipher=connection.get_cipher_name() or "",
            group=connection.get_group_name() or "",
            certificate=_der(certificate),
        )


def _der(certificate: object) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    encode: Callable[[Encoding], bytes] | None = getattr(certificate, "public_bytes", None)
    return encode(Encoding.DER) if encode is not None else b""


def _context(groups: tuple[str, ...]) -> SSL.Context:
    """Believes everybody: who the other end is does not matter here, only what it agrees to."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_verify(SSL.VERIFY_NONE, lambda *_: True)
    context.set_min_proto_version(SSL.TLS1_VERSION)
    context.set_cipher_list(_CIPHERS)
    lib = getattr(SSL, "_lib", None)
    pin: Callable[[object, bytes], int] | None = getattr(lib, "SSL_CTX_set1_curves_list", None)
    if pin is None or pin(getattr(context, "_context", None), ":".join(groups).encode()) != 1:
        raise ValueError(f"this OpenSSL cannot offer {', '.join(groups)}")
    return context


def _flush(connection: SSL.Connection, wire: _Wire) -> None:
    with suppress(SSL.WantReadError):  # nothing to send; the answer is what is missing
        wire.send(connection.bio_read(_READ_BYTES))


def _sorted_out(error: SSL.Error, host: str, port: int) -> PeerFault:
    """An alert of the other side is an answer; anything else is no TLS, or one that we cannot speak."""
    reasons = [str(part[-1]) for part in (error.args[0] if error.args else ()) if part]
    words = f"{authority(host, port)}: {', '.join(reasons) or 'closed during the handshake'}"
    refusal = any("alert" in reason or "no suitable" in reason or "bad key share" in reason for reason in reasons)
    return Refused(words) if refusal else PeerFault(words)


class _Wire:
    """A TCP connection whose every wait ends at one deadline."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.at = authority(host, port)
        self.deadline_s = time.monotonic() + timeout_s
        try:
            self._socket = socket.create_connection((host, port), timeout_s)
        except OSError as problem:
            raise PeerUnavailable(f"{self.at} does not answer: {problem}") from None

    def __enter__(self) -> _Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._wait()
        try:
            self._socket.sendall(data)
        except OSError as problem:
            raise PeerUnavailable(f"{self.at}: {problem}") from None

    def receive(self) -> bytes:
        """At least one byte. Raises PeerUnavailable for silence, PeerFault where the other side hangs up."""
        self._wait()
        try:
            data = self._socket.recv(_READ_BYTES)
        except ConnectionResetError:
            data = b""
        except OSError as problem:
            raise PeerUnavailable(f"{self.at}: {problem}") from None
        if not data:
            raise PeerFault(f"{self.at}: closed the connection without a word")
        return data

    def _wait(self) -> None:
        left_s = self.deadline_s - time.monotonic()
        if left_s <= 0:
            raise PeerUnavailable(f"{self.at}: no answer in time")
        self._socket.settimeout(left_s)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class SshGreeting:
    """banner: a line; packet: the first binary packet, which should be KEXINIT."""

    banner: str
    packet: bytes


def look_at_ssh(
    host: str,
    port: int,
    banner_of: Callable[[bytes], str | None],
    size_of: Callable[[bytes], int],
    timeout_s: float = TIMEOUT_S,
) -> SshGreeting:
    """Banner and first packet, as the two functions find them. Raises PeerUnavailable, PeerFault."""
    with _Wire(host, port, timeout_s) as wire:
        heard = wire.receive()
        while (banner := banner_of(heard)) is None:
            heard += wire.receive()
        wire.send(b"SSH-2.0-Keystrand_look\r\n")
        heard = heard[heard.index(b"\n", heard.index(b"SSH-")) + 1 :]
        while len(heard) < 4:
            heard += wire.receive()
        size = size_of(heard[:4])
        while len(heard) < size:
            heard += wire.receive()
        return SshGreeting(banner, heard[:size])
