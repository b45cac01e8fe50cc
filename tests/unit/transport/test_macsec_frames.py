"""MACsec frames against the vectors of IEEE 802.1AE-2018 Annex C, and what must not pass."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystrand.core.errors import BadRequest, Tampered
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import Extended, Sak, check_icv, icv_key, kdf
from keystrand.transport.macsec.frames import protect, validate
from keystrand.wire import mka
from keystrand.wire.macsec import parse

VECTORS = json.loads(Path("tests/vectors/macsec.json").read_text())
SCI = bytes.fromhex("0200000000010001")
PLAIN = bytes.fromhex("02000000000202000000000188b5") + b"sixty octets of data"


def sak_of(vector: dict[str, Any]) -> Sak:
    extended = None
    if "ssci" in vector:
        extended = Extended(ssci=int(vector["ssci"], 16), salt=bytes.fromhex(vector["salt"]))
    return Sak(Secret(bytes.fromhex(vector["key"])), bytes.fromhex(vector["sci"]), extended)


@pytest.mark.proves("R083")
@pytest.mark.parametrize("vector", VECTORS["frames"], ids=lambda vector: vector["name"])
def test_frames_are_those_of_the_standard(vector: dict[str, Any]) -> None:
    plain, secured = bytes.fromhex(vector["plain"]), bytes.fromhex(vector["secured"])
    pn = int(vector["pn"], 16)
    assert protect(sak_of(vector), plain, an=vector["an"], pn=pn, encrypt=vector["encrypt"]) == secured
    assert validate(sak_of(vector), secured, lowest_pn=pn) == (plain, pn)


@pytest.mark.parametrize("vector", VECTORS["mka"], ids=lambda vector: vector["ckn"])
def test_mka_keys_are_those_of_another_implementation(vector: dict[str, str]) -> None:
    cak, ckn = Secret(bytes.fromhex(vector["cak"])), bytes.fromhex(vector["ckn"])
    assert kdf(cak, b"IEEE8021 KEK", ckn, 128).reveal().hex() == vector["kek"]
    assert icv_key(cak, ckn).reveal().hex() == vector["ick"]


def test_an_mkpdu_of_wpa_supplicant_is_read_and_its_icv_is_ours() -> None:
    told = VECTORS["mkpdu"]
    frame, ckn = bytes.fromhex(told["frame"]), bytes.fromhex(told["ckn"])
    ick = icv_key(Secret(bytes.fromhex(told["cak"])), ckn)
    heard = mka.parse(frame)
    assert (heard.ckn, heard.priority, heard.number, heard.sci) == (ckn, 16, 1, frame[6:12] + b"\0\1")
    check_icv(ick, heard.signed, heard.icv)
    for place in range(18, len(heard.signed)):
        changed = bytearray(heard.signed)
        changed[place] ^= 1
        with pytest.raises(Tampered):
            check_icv(ick, bytes(changed), heard.icv)


def test_an_mkpdu_that_was_cut_off_or_is_none_is_refused() -> None:
    frame = bytes.fromhex(VECTORS["mkpdu"]["frame"])
    for length in range(len(frame)):
        with pytest.raises(BadRequest):
            mka.parse(frame[:length])
    with pytest.raises(BadRequest, match="not an MKPDU"):
        mka.parse(frame[:15] + b"\x03" + frame[16:])  # an EAPOL-Key


@given(st.binary(min_size=14, max_size=200), st.integers(0, 3), st.integers(1, 2**32 - 1), st.booleans(), st.booleans())
def test_a_frame_comes_back_whatever_padding_follows_a_short_one(
    plain: bytes, an: int, pn: int, encrypt: bool, long: bool
) -> None:
    sak = Sak(Secret(bytes(32)), SCI, Extended(ssci=1, salt=bytes(range(12))) if long else None)
    secured = protect(sak, plain, an=an, pn=pn, encrypt=encrypt)
    padding = bytes(max(0, 60 - len(secured)))
    assert validate(sak, secured + padding) == (plain, pn)
    assert parse(secured).tag.an == an


@given(st.data())
def test_no_bit_of_a_frame_can_be_changed(data: st.DataObject) -> None:
    sak = Sak(Secret(bytes(16)), SCI)
    secured = bytearray(protect(sak, PLAIN, an=1, pn=7))
    place = data.draw(st.integers(0, 8 * len(secured) - 1))
    secured[place // 8] ^= 1 << place % 8
    with pytest.raises((BadRequest, Tampered)):
        assert validate(sak, bytes(secured))[0] == PLAIN  # an 802.1AE bit that says nothing may not change the data


@given(st.integers(2**32, 2**64 - 2**32), st.integers(-(2**30), 2**30))
def test_the_upper_half_of_a_long_packet_number_is_found(lowest: int, ahead: int) -> None:
    """As long as a frame is less than 2^30 numbers from where it is expected (10.6.2)."""
    sak = Sak(Secret(bytes(32)), SCI, Extended(ssci=1, salt=bytes(12)))
    pn = lowest + abs(ahead)
    assert sak.full_pn(pn & 0xFFFFFFFF, lowest) == pn


@given(st.binary(max_size=80))
def test_what_is_no_frame_is_refused(noise: bytes) -> None:
    with pytest.raises(BadRequest):
        parse(noise[:12] + b"\x08\x00" + noise)


@pytest.mark.parametrize("pn", [0, 2**32])
def test_packet_numbers_end_where_the_suite_says(pn: int) -> None:
    with pytest.raises(BadRequest, match="packet number"):
        protect(Sak(Secret(bytes(32)), SCI), PLAIN, an=0, pn=pn)
