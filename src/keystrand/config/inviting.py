"""Let a person administer a site: a certificate of their own, and a grant in the site's file.

A site that was just founded has no administration listener: nothing is there to be attacked until somebody is invited.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keystrand.config.founding import PORTS, append
from keystrand.config.load import load_site
from keystrand.core.errors import BadRequest, ConfigError
from keystrand.core.identity import check_name
from keystrand.crypto import pki
from keystrand.govern.roles import ALL, REACH, ROLES, Reach, Role

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


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"
