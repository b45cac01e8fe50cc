"""The administration API against schemathesis: what its OpenAPI document promises, it does, whatever is sent."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from admin_desk_double import key_id, site
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from keystrand.api.admin_routes import ROUTES
from keystrand.api.openapi import document
from keystrand.testing.asgi import CertificateName, TlsSide

EXAMPLES = 12  # per operation, person and mode: below a minute for all
OPERATIONS = [(route.method, "/admin/v1" + route.path) for route in ROUTES] + [("GET", "/admin/v1/openapi.json")]
# certificates are out of its sight, and rules between two fields are out of JSON Schema's
UNFIT = [ignored_auth, positive_data_acceptance]


class Signed:
    """The application as one administrator sees it."""

    def __init__(self, app: Any, name: str) -> None:
        self.app, self.name = app, name

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            raise NotImplementedError
        tls = {"keystrand.tls": TlsSide(CertificateName("admin", self.name), "00")}
        await self.app({**scope, "extensions": tls}, receive, send)


@pytest.mark.proves("R045")
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
@pytest.mark.parametrize("who", ["ann", "aud"])
@pytest.mark.parametrize("mode", list(GenerationMode))
def test_API9_schemathesis_finds_nothing(mode: GenerationMode, who: str, method: str, path: str) -> None:
    desk = site()
    told = document(ROUTES)
    schema = schemathesis.openapi.from_dict(told)
    schema.app = Signed(desk.app, who)
    operation = schema[path][method]
    statuses: set[int] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(mode))
    def hold(case: schemathesis.Case) -> None:
        statuses.add(case.call_and_validate(excluded_checks=UNFIT).status_code)

    if mode is GenerationMode.NEGATIVE and not _has_input(told, method, path):
        return  # nothing to get wrong
    hold()
    assert statuses
    assert all(status < 500 for status in statuses)
    assert desk.desk.records, "no call goes unrecorded"
    assert desk.desk.keys[key_id(0)].tenant == "beta"


def _has_input(told: Any, method: str, path: str) -> bool:
    operation = told["paths"][path][method.lower()]
    return bool(operation["parameters"] or "requestBody" in operation)
