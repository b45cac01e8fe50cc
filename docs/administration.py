"""The administration API: `python docs/administration.py` writes reference/administration.json (OpenAPI) and .md."""

from __future__ import annotations

import json
from pathlib import Path

from keystrand.api.admin_call import PREFIX
from keystrand.api.admin_routes import ROUTES
from keystrand.api.openapi import document
from keystrand.govern.roles import REACH, ROLES, Operation, Role

FOLDER = Path(__file__).parent / "reference"
PAGE, OPENAPI = FOLDER / "administration.md", FOLDER / "administration.json"

HEAD = """\
# Administration API

<!-- Printed by `python docs/administration.py`; a test compares. -->

REST over mutual TLS on the address in `[admin]`. The OpenAPI 3.1 document is [administration.json](administration.json), and a
running site serves it at `/admin/v1/openapi.json`. [The guide](../guides/administrators.md) says how to begin.

## Routes

| route | operation | what it does |
|---|---|---|
"""

ROLES_HEAD = """
## Roles

What no role names is refused. Reach: `site` is not bounded; `whole` needs a grant over all
tenants and SAEs; `tenant` is bounded by the tenants of the grant; `owner` by its
tenants and by the SAEs that hold the key.

| operation | reach | {roles} |
|---|---|{rules}|
"""


def page() -> str:
    """The whole of administration.md."""
    routes = "".join(
        f"| `{route.method} {PREFIX}{route.path}` | `{route.operation.value}` | {route.summary} |\n" for route in ROUTES
    )
    head = ROLES_HEAD.format(roles=" | ".join(Role), rules="|".join("---" for _ in Role))
    return HEAD + routes + head + "".join(map(_operation, Operation))


def _operation(operation: Operation) -> str:
    marks = " | ".join("yes" if operation in ROLES[role] else "" for role in Role)
    return f"| `{operation.value}` | {REACH[operation].value} | {marks} |\n"


def openapi() -> str:
    """The whole of administration.json; the version is that of the package, and not in the file."""
    told = document(ROUTES)
    told["info"]["version"] = "1"
    return json.dumps(told, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    OPENAPI.write_text(openapi(), encoding="utf-8")
