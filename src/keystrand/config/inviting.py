"""Let a person administer a site: a certificate of their own, and a grant in the site's file; and take both back.

A site that was just founded has no administration listener: nothing is there to be attacked until somebody is invited.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keystrand.config.founding import PORTS, append, rewrite
from keystrand.config.load import load_site
from keystrand.core.errors import BadRequest, ConfigError
from keystrand.core.identity import check_name
from keystrand.crypto import pki
from keystrand.govern.roles import ALL, REACH, ROLES, Reach, Role

_GRANT_HEAD: Final = "[[admin.grants]]"
_GRANT_TABLE: Final = re.compile(r"^(?=\[\[admin\.grants\]\])", re.MULTILINE)
_TABLE: Final = re.compile(r"^\[", re.MULTILINE)
_NAMES: Final = re.compile(r"^names\s*=\s*\[[^\]]*\]", re.MULTILINE)  # no name has a bracket
ADMIN_PORT: Final = len(PORTS)  # from the base port on: the one after those that every site has

_ADMIN: Final = """
# Who may administer the site: `keystrand admin invite NAME --role ROLE`. What no grant names is refused.
[admin]
listen = "127.0.0.1:{port}"
approvals = 1                   # how many others must approve what needs approval
"""

_GRANT: Final = """
[[admin.grants]]
role = "{role}"
names = ["{name}"]
{reach}"""


def invite_admin(
    file: Path, name: str, role: Role, *, tenants: Sequence[str] = (), saes: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Certificate and private key of the person. tenants, saes: what the grant reaches; none: all, where the role reaches keys.

    Raises BadRequest for a tenant administrator of no tenant, ConfigError where the file does not bear the grant.
    """
    check_name(name, what="administrator")
    if role in (Role.TENANT_ADMINISTRATOR, Role.CUSTODIAN) and not tenants:
        raise BadRequest(f"say for which tenants {name} is {role}", hint='--tenant NAME, or --tenant "*" for all')
    config = load_site(file)
    addition = ""
    if config.admin is None:
        addition += _ADMIN.format(port=config.etsi014.listen.port + ADMIN_PORT)
    reaches = {REACH[operation] for operation in ROLES[role]} & {Reach.OWNER, Reach.TENANT, Reach.WHOLE}
    reach = ""
    if reaches:
        reach = f"tenants = {_listed(tenants or (ALL,))}\nsaes = {_listed(saes or (ALL,))}\n"
    elif tenants or saes:
        raise BadRequest(f"{role} is not bounded by tenants and SAEs", hint="leave --tenant and --sae out")
    folder = config.tls.trust.parent
    if (folder / f"admin-{name}.pem").exists():
        hint = "keystrand pki issue admin NAME --force makes another one"
        raise ConfigError(f"{name} has a certificate already", path=str(folder / f"admin-{name}.pem"), hint=hint)
    append(file, addition + _GRANT.format(role=role, name=name, reach=reach))
    return pki.issue(folder, kind="admin", name=name)


def remove_admin(file: Path, name: str) -> list[Path]:
    """Take `name` out of every grant of the site's file; the certificate and private key that lie here are set aside, and are
    returned. A grant that names nobody any more goes.

    Raises BadRequest where no grant names them, ConfigError where the file would not be sound without them.
    """
    config = load_site(file)
    if config.admin is None or name not in config.admin.by_name():
        raise BadRequest(f"no grant names {name}", hint="see `keystrand admin list`")
    if all(set(grant.names) <= {name} and not grant.groups for grant in config.admin.grants):
        raise BadRequest(f"{name} is the only administrator", hint="invite another one first, or take out [admin]")
    parts = _GRANT_TABLE.split(file.read_text("utf-8"))
    rewrite(file, "".join(_without(part, name) for part in parts))
    files = (config.tls.trust.parent / f"admin-{name}{ending}" for ending in (".pem", ".key"))
    return [_set_aside(path) for path in files if path.exists()]


def _without(part: str, name: str) -> str:
    """A piece of the file from one table of grants to the next."""
    if not part.startswith(_GRANT_HEAD):
        return part
    following = _TABLE.search(part, len(_GRANT_HEAD))
    table, rest = (part, "") if following is None else (part[: following.start()], part[following.start() :])
    grant = tomllib.loads(table)["admin"]["grants"][0]
    names = [other for other in grant.get("names", ()) if other != name]
    if names == grant.get("names", []):
        return part
    if not names and not grant.get("groups"):
        return _comments_at_the_end(table) + rest
    return _NAMES.sub(f"names = {_listed(names)}", table, count=1) + rest


def _comments_at_the_end(table: str) -> str:
    """They belong to what comes next."""
    lines = table.splitlines(keepends=True)
    kept = next(place for place in range(len(lines), 0, -1) if lines[place - 1].strip() and lines[place - 1][0] != "#")
    return "".join(lines[kept:])


def _set_aside(path: Path) -> Path:
    return path.rename(path.with_name(path.name + ".removed"))


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
