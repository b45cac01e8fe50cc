"""An administrator as a client of a site's administration API: certificate, trust and address from the site's file."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

import click

from keystrand.cli.options import FILE, certificate_pair, config_option, site_of
from keystrand.cli.terminal import say
from keystrand.core.errors import (
    BadRequest,
    ConfigError,
    IllegalTransition,
    KeystrandError,
    NotPermitted,
    PeerFault,
    Unavailable,
    UnknownKey,
)

if TYPE_CHECKING:
    from keystrand.net.http_exchange import Response

Verb = Callable[..., Any]
REASON: Final = click.option("--reason", required=True, help="Why; goes into the audit log.")
REQUEST_S = 30.0
_ERRORS: dict[int, type[KeystrandError]] = {
    401: NotPermitted,
    403: NotPermitted,
    404: UnknownKey,
    409: IllegalTransition,
    503: Unavailable,
}


@dataclass(frozen=True, slots=True)
class Order:
    """What is wanted of a site, and of which: the one that runs, as administrator `name`, or the stopped one."""

    config_file: Path
    name: str | None
    token_file: Path | None
    reason: str = ""

    @property
    def is_for_running(self) -> bool:
        return self.name is not None

    def client(self) -> AdminClient:
        assert self.name is not None
        return AdminClient(self.config_file, self.name, self.token_file)


def _with_order(function: Verb, words: str, *, required: bool, reason: bool = False) -> Verb:
    """`--config`, `--as`, `--token-file`, and `--reason` where it is asked for; the function gets them as one `order`."""

    @wraps(function)
    def verb(*args: Any, config_file: Path, name: str | None, token_file: Path | None, **rest: Any) -> Any:
        why = {"reason": rest.pop("reason")} if reason else {}
        return function(*args, order=Order(config_file, name, token_file, **why), **rest)

    given: Verb = REASON(verb) if reason else verb
    of_provider = "File with an access token of the OpenID provider."
    given = click.option("--token-file", type=FILE, default=None, help=of_provider)(given)
    given = click.option("--as", "name", required=required, envvar="KEYSTRAND_ADMIN", show_envvar=True, help=words)(
        given
    )
    return config_option(given)


def admin_options(function: Verb) -> Verb:
    """For a verb that asks the site that runs."""
    words = "Administrator; the certificate admin-NAME.pem beside the site's CA is used."
    return _with_order(function, words, required=True)


def order_options(*, reason: bool = True) -> Callable[[Verb], Verb]:
    """For a verb that either asks the site that runs or works on the stopped one."""
    words = "Administrator who asks the site that runs.  [default: the site is stopped]"
    return partial(_with_order, words=words, required=False, reason=reason)


def propose_or_tell(answer: dict[str, Any]) -> dict[str, Any]:
    """Say how to go on where others must approve it first; the answer."""
    if "proposal_id" in answer:
        click.echo(answer["proposal_id"])
        words = f"proposed; {answer['needed']} other(s) must approve it: keystrand approvals approve"
        say(f"{words} {answer['proposal_id']}")
    return answer


class AdminClient:
    """Calls one site. Raises the error that an answer stands for."""

    def __init__(self, config_file: Path, name: str, token_file: Path | None) -> None:
        from keystrand.net.http_client import SyncHttpClient
        from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy

        config = site_of(config_file)
        if config.admin is None:
            raise ConfigError(
                "this site has no [admin]",
                path=str(config_file),
                hint="keystrand admin invite NAME --role ROLE, then start it again",
            )
        tls, listen = config.tls, config.admin.listen
        pair = certificate_pair(config, f"admin-{name}", hint=f"keystrand admin invite {name} --role ROLE")
        self._token = _token(token_file)
        contexts = TlsContexts(
            TlsFiles(*pair, tls.trust, tls.revoked), TlsPolicy(require_pqc_group=tls.require_pqc_group)
        )
        host = "127.0.0.1" if listen.is_wildcard else listen.host
        expect = ("kme" if tls.identity == "san-uri" else None, config.site.kme_id)
        self._http = SyncHttpClient(host, listen.port, contexts, expect=expect, timeout_s=REQUEST_S)

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, path: str, query: Mapping[str, object] | None = None) -> Any:
        known = {name: value for name, value in (query or {}).items() if value is not None}
        return self._call("GET", path + (f"?{urlencode(known)}" if known else ""), None)[0]

    def etag(self, path: str) -> str:
        return self._call("GET", path, None)[1].headers.get("etag", "")

    def post(self, path: str, body: object = None, **headers: str) -> Any:
        """A change, asked for once: the key that names it is fresh for each call."""
        return self._call("POST", path, body, {"Idempotency-Key": secrets.token_hex(16), **headers})[0]

    def _call(
        self, method: str, path: str, body: object, headers: Mapping[str, str] | None = None
    ) -> tuple[Any, Response]:
        import msgspec

        from keystrand.wire.decoding import UNREADABLE

        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        raw = None if body is None else msgspec.json.encode(body)
        answer = self._http.request(method, f"/admin/v1{path}", raw, headers=sent)
        try:
            value = msgspec.json.decode(answer.body)
        except UNREADABLE:
            raise PeerFault("the answer is not JSON") from None
        if answer.status >= 400:
            kind = _ERRORS.get(answer.status, BadRequest)
            raise kind(str(value.get("message", answer.status)), hint=value.get("hint") or None)
        return value, answer


def _token(file: Path | None) -> str:
    if file is None:
        return ""
    from keystrand.config.faults import require_private

    require_private(file)
    return file.read_text("ascii").strip()
