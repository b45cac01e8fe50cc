"""Found a site, tell others about it, and join it to another site by a link.

Two people at two machines exchange site cards: public facts only (names, addresses, a CA certificate, the key that
verifies the audit log). A card's fingerprint is compared by voice or any other way that cannot be forged, because
whoever can swap a card can pose as the other site. The start key of the QKD link is secret and must travel by hand.

Files are only added to, never rewritten: what an operator wrote, comments included, stays as it is.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from pathlib import Path
from typing import Final, Literal

import msgspec

from keystrand.config.load import load_site, site_faults
from keystrand.config.schema import SiteConfig
from keystrand.config.values import Address
from keystrand.core.errors import BadRequest, ConfigError, KeystrandError
from keystrand.core.files import create_private
from keystrand.core.identity import check_name
from keystrand.crypto import pki
from keystrand.crypto.sign import Signer, Verifier
from keystrand.observe.audit import origin

CARD_VERSION: Final = 1
START_KEY_BYTES: Final = 4096  # the stock of authentication key that a link begins with
CARD_BYTES_MAX: Final = 65_536
_SERIAL: Final = re.compile(r"^(policy_serial\s*=\s*)(\d+)", re.MULTILINE)
PORTS: Final = ("etsi014", "peer", "device", "status", "gateway", "classical", "quantum")  # from the base port on

_SITE: Final = """\
# Site {name}. `keystrand config check {file}` explains each fault with its line.

[site]
name = "{name}"
kme_id = "{kme_id}"
state_dir = "state"
root_key_file = "passphrase"    # seals the store; keep a copy elsewhere, nothing can be read without it
audit_key_file = "audit.key"
policy_serial = 1               # raise it with every change of saes, tenants and policy: the site wants a higher one

[tls]
certificate = "pki/kme-{kme_id}.pem"
private_key = "pki/kme-{kme_id}.key"
trust = "pki/ca.pem"
revoked = "pki/ca.crl"

[etsi014]
listen = "{listen}:{etsi014}"

[peer]
listen = "{listen}:{peer}"
trust = "peers/ca.pem"

[device]
listen = "127.0.0.1:{device}"

[status]
listen = "127.0.0.1:{status}"

[saes."{gateway_sae}"]
site = "{name}"

[gateway]
sae = "{gateway_sae}"
certificate = "pki/sae-{gateway_sae}.pem"
private_key = "pki/sae-{gateway_sae}.key"
kme = "127.0.0.1:{etsi014}"
listen = "{listen}:{gateway}"
inbox = "inbox"
rotate_bytes = 16777216
rotate_s = 60.0
"""

_LINK: Final = """
[links."{link}"]
peer = "{peer}"
module = "{module}"
"""

_PEER: Final = """
[peers."{peer}"]
kme_id = "{kme_id}"
address = "{peer_address}"
audit_key = "peers/{peer}.audit.pub"

[saes."{gateway_sae}"]
site = "{peer}"

[gateway.peers."{peer}"]
address = "{gateway_address}"
sae = "{gateway_sae}"
"""

_MODULE: Final = """\
# The {role} of link {link} at site {site}. Source, fibre, detector and distillation must be equal at both ends.

[module]
link = "{link}"
role = "{role}"
module_id = "{module}"
state_dir = "state"
start_key_file = "start.key"

[classical]
{verb} = "{classical}"

[quantum]    # simulated light reveals the key to whoever hears it: loopback only, between machines through a tunnel
{verb} = "{quantum}"

[kme]
address = "{device}"
kme_id = "{kme_id}"

[tls]
certificate = "../../pki/module-{module}.pem"
private_key = "../../pki/module-{module}.key"
trust = "../../pki/ca.pem"
revoked = "../../pki/ca.crl"

[fibre]
length_km = {length_km}
"""

Role = Literal["transmitter", "receiver"]


class SiteCard(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What another site must know of this one. Nothing in it is secret; all of it must be authentic."""

    version: int
    name: str
    kme_id: str
    peer_address: str
    gateway_address: str
    gateway_sae: str
    classical_address: str
    quantum_address: str
    ca: str
    audit_key: str

    def text(self) -> str:
        """JSON, one field a line, in a fixed order."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every field, 32 hexadecimal digits in groups of four: short enough to read out."""
        digest = hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:32]
        return " ".join(digest[i : i + 4] for i in range(0, 32, 4))


def found_site(
    folder: Path,
    name: str,
    *,
    host: str = "127.0.0.1",
    listen_host: str = "127.0.0.1",
    base_port: int = 8440,
    certificates: pki.Algorithm = "ecdsa-p256",
) -> Path:
    """Make CA, certificates, passphrase, audit key and `site.toml` in `folder`; the path of the file.

    host: name or address by which other sites reach this one; certificates: how the CA and those that it issues sign. Raises
    ConfigError where a site stands there already.
    """
    check_name(name, what="site name")
    if not 1 <= base_port <= 65_535 - len(PORTS):
        raise BadRequest(f"base port {base_port} is outside 1 .. {65_535 - len(PORTS)}")
    file = folder / "site.toml"
    if file.exists():
        raise ConfigError("a site stands here already", path=str(file), hint="choose another --dir")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for inner in ("peers", "links", "state"):
        (folder / inner).mkdir(exist_ok=True, mode=0o700)
    kme_id, gateway_sae = f"kme-{name}", f"gateway-{name}"
    hosts = tuple(dict.fromkeys((host, *pki.OWN_MACHINE)))
    ca, _ = pki.create_ca(folder / "pki", name, algorithm=certificates)
    pki.issue(folder / "pki", kind="kme", name=kme_id, hosts=hosts)
    pki.issue(folder / "pki", kind="sae", name=gateway_sae, hosts=hosts)
    (folder / "peers" / "ca.pem").write_bytes(ca.read_bytes())
    write_private(folder / "passphrase", base64.b64encode(secrets.token_bytes(32)) + b"\n")
    signer = Signer.load_or_create(origin(name), folder / "audit.key")
    (folder / "audit.pub").write_text(signer.verifier.vkey() + "\n")
    ports = {word: base_port + place for place, word in enumerate(PORTS)}
    listen = _bracketed(listen_host)
    text = _SITE.format(name=name, file=file, kme_id=kme_id, gateway_sae=gateway_sae, listen=listen, **ports)
    file.write_text(text)
    load_site(file)
    return file


def card_of(file: Path, host: str | None = None) -> SiteCard:
    """The card of the site in `file`. host: how others reach it; left out: the first host of its KME certificate."""
    config = load_site(file)
    if config.gateway is None:
        raise ConfigError("this site has no [gateway]", path=str(file), hint="add the section, then export again")
    shown = _bracketed(host or pki_host(config.tls.certificate))
    first = config.etsi014.listen.port
    place = {word: f"{shown}:{first + PORTS.index(word)}" for word in ("classical", "quantum")}
    return SiteCard(
        version=CARD_VERSION,
        name=config.site.name,
        kme_id=config.site.kme_id,
        peer_address=f"{shown}:{config.peer.listen.port}",
        gateway_address=f"{shown}:{config.gateway.listen.port}",
        gateway_sae=config.gateway.sae,
        classical_address=place["classical"],
        quantum_address=place["quantum"],
        ca=config.tls.trust.read_text(),
        audit_key=Signer.load_or_create(origin(config.site.name), config.site.audit_key_file).verifier.vkey(),
    )


def pki_host(certificate: Path) -> str:
    """The first DNS name or IP address of a certificate, PEM."""
    from cryptography import x509

    names = pki.load_certificate(certificate).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    hosts = [str(name.value) for name in names if isinstance(name, x509.DNSName | x509.IPAddress)]
    if not hosts:
        raise ConfigError("the certificate names no host", path=str(certificate), hint="state --host")
    return hosts[0]


def read_card(content: bytes) -> SiteCard:
    """A card as another site wrote it. Raises BadRequest for anything else; nothing in it is trusted to be a path."""
    try:
        if len(content) > CARD_BYTES_MAX:
            raise ValueError("too long")
        card = msgspec.json.decode(content, type=SiteCard)
        for name in (card.name, card.kme_id, card.gateway_sae):
            check_name(name)
        for address in (card.peer_address, card.gateway_address, card.classical_address, card.quantum_address):
            _plain(Address(address))
        if Verifier.parse(card.audit_key).name != origin(card.name):
            raise ValueError("its audit key is that of another site")
        _check_ca(card.ca)
    except (msgspec.MsgspecError, ValueError, KeystrandError, RecursionError) as error:
        raise BadRequest(f"not a site card: {error}", hint="ask for a fresh `keystrand site export`") from None
    if card.version != CARD_VERSION:
        raise BadRequest(f"this card has version {card.version}, known here is {CARD_VERSION}")
    return card


def _plain(address: Address) -> None:
    """No quote or control character may pass from a card into a file."""
    if not all(c.isascii() and (c.isalnum() or c in ".-:[]") for c in address):
        raise ValueError(f"{address!r} is not host:port")


def _check_ca(text: str) -> None:
    from cryptography import x509

    for certificate in x509.load_pem_x509_certificates(text.encode()):
        if not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            raise ValueError("its certificate is not that of a CA")


def join_link(
    file: Path,
    card: SiteCard,
    *,
    link: str,
    role: Role,
    start_key: bytes | None,
    length_km: float = 25.0,
    classical: str | None = None,
    quantum_port: int | None = None,
) -> Path:
    """Make this end of link `link` to the site of `card`; the path of `module.toml`. Changes nothing where it fails. A site
    that is no peer yet becomes one. classical, quantum_port: where the channels meet, for every link of a site but its first.

    start_key: as read from the other end; None: a fresh one is made. Raises ConfigError, BadRequest.
    """
    config = load_site(file)
    check_name(link, what="link name")
    if link in config.links:
        raise ConfigError(f"link {link} exists already", path=str(file), hint="choose another name")
    is_known = _is_known(config, card, str(file))
    if start_key is not None and len(start_key) != START_KEY_BYTES:
        raise BadRequest(f"the start key has {len(start_key)} bytes, not {START_KEY_BYTES}")
    module = f"{link}-{config.site.name}"
    folder = file.parent / "links" / link
    channels = _channels(file.parent, config, card, role, classical, quantum_port)
    module_file = _write_module(file.parent, config, channels, link=link, role=role, module=module, length_km=length_km)
    write_private(folder / "start.key", start_key or secrets.token_bytes(START_KEY_BYTES))
    addition = _LINK.format(peer=card.name, link=link, module=module)
    if is_known:
        append(file, addition)
    else:
        append_policy(file, _met(file, config, card) + addition)
    return module_file


def join_peer(file: Path, card: SiteCard) -> None:
    """Make the site of `card` a peer without a QKD link: for the far end of a relayed link, or for keys of ML-KEM alone.

    Raises ConfigError where it is one already.
    """
    config = load_site(file)
    if _is_known(config, card, str(file)):
        raise ConfigError(f"{card.name} is a peer already", path=str(file), hint="add a link with `keystrand link add`")
    append_policy(file, _met(file, config, card))


def _met(file: Path, config: SiteConfig, card: SiteCard) -> str:
    """Keep what vouches for a new peer; the lines that make it one."""
    (file.parent / "peers").mkdir(exist_ok=True, mode=0o700)
    (file.parent / "peers" / f"{card.name}.audit.pub").write_text(card.audit_key + "\n")
    known = config.peer_trust.read_text()
    if card.ca not in known:
        config.peer_trust.write_text(known + card.ca)
    return _PEER.format(peer=card.name, **_card_fields(card))


def _card_fields(card: SiteCard) -> dict[str, str]:
    return {name: getattr(card, name) for name in ("kme_id", "peer_address", "gateway_address", "gateway_sae")}


def _is_known(config: SiteConfig, card: SiteCard, path: str) -> bool:
    """Whether the site of this card is a peer already. Raises ConfigError where it cannot be one, or is another one."""
    if card.name == config.site.name:
        raise ConfigError("this card is the site's own", path=path, hint="import the card of the other site")
    if (peer := config.peers.get(card.name)) is not None:
        if peer.kme_id != card.kme_id or peer.audit_key.read_text().strip() != card.audit_key:
            raise ConfigError(
                f"{card.name} is a peer already, and this card is of another", path=path, hint="ask its owner"
            )
        return True
    if config.peer.trust is None:
        hint = "copy the CA file, and name the copy as trust in [peer]: peers must not vouch for SAEs of this site"
        raise ConfigError("[peer] has no trust of its own", path=path, hint=hint)
    return False


def _channels(
    home: Path, config: SiteConfig, card: SiteCard, role: Role, classical: str | None, quantum_port: int | None
) -> tuple[str, str]:
    """Addresses of the classical and the quantum channel. Raises ConfigError where another link of this site has them."""
    first, host = config.etsi014.listen.port, config.etsi014.listen.rpartition(":")[0]
    if role == "transmitter":
        usual = f"{host}:{first + PORTS.index('classical')}", first + PORTS.index("quantum")
    else:
        usual = card.classical_address, Address(card.quantum_address).port
    found = str(Address(classical or usual[0])), f"127.0.0.1:{quantum_port or usual[1]}"
    taken = [
        path
        for path in home.glob("links/*/module.toml")
        if any(f'"{address}"' in path.read_text() for address in found)
    ]
    if taken:
        hint = "state --classical HOST:PORT and --quantum-port PORT, the same at both ends"
        raise ConfigError(f"{' and '.join(found)} are those of another link", path=str(taken[0]), hint=hint)
    return found


def _write_module(
    home: Path,
    config: SiteConfig,
    channels: tuple[str, str],
    *,
    link: str,
    role: Role,
    module: str,
    length_km: float,
) -> Path:
    folder = home / "links" / link
    folder.mkdir(parents=True, mode=0o700, exist_ok=True)
    pki.issue(home / "pki", kind="module", name=module, hosts=pki.OWN_MACHINE)
    text = _MODULE.format(
        role=role,
        link=link,
        site=config.site.name,
        module=module,
        verb="listen" if role == "transmitter" else "connect",
        classical=channels[0],
        quantum=channels[1],
        device=f"127.0.0.1:{config.device.listen.port}",
        kme_id=config.site.kme_id,
        length_km=length_km,
    )
    (folder / "module.toml").write_text(text)
    return folder / "module.toml"


def append(file: Path, addition: str) -> None:
    """Add to a site's file, whole or not at all. Raises the first ConfigError that the addition would cause."""
    rewrite(file, file.read_text("utf-8").rstrip("\n") + "\n" + addition)


def append_policy(file: Path, addition: str) -> None:
    """The same for SAEs and rules: where the site has run already, it wants another number for its policy, and gets it."""
    rewrite_policy(file, file.read_text("utf-8").rstrip("\n") + "\n" + addition)


def rewrite_policy(file: Path, text: str) -> None:
    """`rewrite` with the next number of the policy, where the site has run already."""
    if load_site(file).store_file.exists():
        text = _SERIAL.sub(lambda line: f"{line[1]}{int(line[2]) + 1}", text, count=1)
    rewrite(file, text)


def rewrite(file: Path, text: str) -> None:
    """Put `text` in the place of a site's file, whole or not at all. Raises the first ConfigError that this would cause."""
    known = {str(fault) for fault in site_faults(file)}
    temporary = file.with_name(file.name + ".new")
    temporary.write_text(text, "utf-8")
    temporary.chmod(file.stat().st_mode & 0o777)
    faults = [fault for fault in site_faults(temporary) if str(fault).replace(".new:", ":", 1) not in known]
    if faults:
        temporary.unlink()
        raise faults[0]
    temporary.replace(file)


def write_private(path: Path, content: bytes) -> None:
    """A file for its owner only, never over another. Raises ConfigError."""
    try:
        create_private(path, content)
    except FileExistsError:
        raise ConfigError("exists already", path=str(path), hint="move it away first") from None


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
