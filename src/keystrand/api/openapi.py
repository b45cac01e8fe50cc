"""The OpenAPI 3.1 document of the administration API, made of its route table: what is not in the table is not served."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from keystrand.api.admin_call import ETAG, PREFIX, Param, Route
from keystrand.api.admin_forms import Form, Problem
from keystrand.core.release import release

_ERRORS: Final = {
    400: "the request cannot be understood",
    401: "not authenticated",
    403: "the role does not include this, or does not reach as far",
    404: "not there, or out of reach: which of both is not said",
    405: "another method is served here",
    409: "the state of things does not allow it",
    413: "the body is too long",
    415: "the body is not application/json",
    503: "not now; Retry-After says when to try again",
}
_ONLY_CHANGES: Final = {422: "the Idempotency-Key stands for another request"}
_ONLY_GUARDED: Final = {412: "it was changed since it was read", 428: "If-Match is missing"}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole document, ready for JSON."""
    forms: set[type[Form]] = {
        form for route in routes for form in (*route.answers.values(), *([route.body] if route.body else []))
    }
    ordered: list[type[Form]] = sorted({*forms, Problem}, key=lambda form: form.__name__)
    _, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(PREFIX + route.path, {})[route.method.lower()] = _operation(route)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keystrand administration",
            "version": release(),
            "description": "Over mutual TLS with a certificate urn:keystrand:admin:NAME; no route returns key material.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {**paths, f"{PREFIX}/openapi.json": {"get": _own()}},
        "components": {
            "schemas": dict(sorted(components.items())),
            "securitySchemes": {
                "certificate": {"type": "mutualTLS"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
        "security": [{"certificate": []}, {"certificate": [], "token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    parameters = [_parameter(param, "path") for param in route.params]
    parameters += [_parameter(param, "query") for param in route.query]
    if route.changes:
        schema = {"type": "string", "pattern": "^[A-Za-z0-9_-]+$", "minLength": 1, "maxLength": 64}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": True, "schema": schema})
    if route.guarded:
        schema = {"type": "string", "pattern": ETAG}
        parameters.append({"name": "If-Match", "in": "header", "required": True, "schema": schema})
    operation: dict[str, Any] = {
        "operationId": f"{route.method.lower()}{''.join(part.strip('{}').title() for part in route.parts[2:])}",
        "summary": route.summary,
        "description": f"Needs the operation `{route.operation.value}`.",
        "parameters": parameters,
        "responses": _responses(route),
    }
    if route.body is not None:
        operation["requestBody"] = {"required": True, "content": _content(route.body)}
    return operation


def _responses(route: Route) -> dict[str, Any]:
    errors = _ERRORS | (_ONLY_CHANGES if route.changes else {}) | (_ONLY_GUARDED if route.guarded else {})
    found: dict[str, Any] = {
        str(status): {
            "description": "proposed; waits for approval" if status == 202 else "done",
            "content": _content(form),
        }
        for status, form in route.answers.items()
    }
    return found | {
        str(status): {"description": words, "content": _content(Problem)} for status, words in sorted(errors.items())
    }


def _own() -> dict[str, Any]:
    plain = {"description": "this document", "content": {"application/json": {"schema": {"type": "object"}}}}
    refused = {
        str(status): {"description": words, "content": _content(Problem)}
        for status, words in _ERRORS.items()
        if status in (401, 403, 405, 503)
    }
    return {
        "operationId": "getOpenapi",
        "summary": "This description",
        "description": "Needs the operation `status.read`.",
        "parameters": [],
        "responses": {"200": plain, **refused},
    }


def _content(form: type[Form]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{form.__name__}"}}}


def _parameter(param: Param, place: str) -> dict[str, Any]:
    return {
        "name": param.name,
        "in": place,
        "required": place == "path",
        "description": param.about,
        "schema": dict(param.schema),
    }
