"""Header fields that a client sends: as stated, and never two requests for one."""

from __future__ import annotations

import pytest

from keystrand.net.http_exchange import print_request


def test_header_fields_are_sent_as_stated() -> None:
    told = print_request("POST", "/x", b"{}", authority="h", headers={"If-Match": '"1-ab"', "Idempotency-Key": "k_1"})
    head, _, body = told.partition(b"\r\n\r\n")
    assert body == b"{}"
    assert {b'If-Match: "1-ab"', b"Idempotency-Key: k_1", b"Content-Length: 2"} <= set(head.split(b"\r\n"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a", "b\r\nc: d"),
        ("a", "b\nc"),
        ("a: b\r\nc", "d"),
        ("a b", "c"),
        ("", "x"),
        ("a", "\0"),
        ("a", "é"),
        ("é", "a"),
    ],
)
def test_what_could_smuggle_is_refused(name: str, value: str) -> None:
    with pytest.raises(ValueError, match="header"):
        print_request("GET", "/x", None, authority="h", headers={name: value})
