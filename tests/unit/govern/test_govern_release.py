"""M of N: enough custodians, each once, each with the very share that was handed out, in time."""

from __future__ import annotations

import pytest

from keystrand.core.clock import SystemEntropy
from keystrand.core.errors import BadRequest, IllegalTransition, NotPermitted, UnknownKey
from keystrand.core.secret import Secret
from keystrand.crypto.shares import split
from keystrand.govern.release import RELEASES_MAX, Releases
from keystrand.testing.clock import VirtualClock

RECORD, SHARES = split(Secret(bytes(range(34))), 3, 5)
OTHER, STRANGE = split(Secret(bytes(34)), 2, 2)


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def releases(clock: VirtualClock) -> Releases:
    return Releases(clock, SystemEntropy(), 60.0)


def begun(releases: Releases) -> str:
    return releases.begin("acme", RECORD, requester="ann", reason="lost").release_id


def again(index: int):  # type: ignore[no-untyped-def]
    """A fresh copy of a share, as it comes over the wire: what is wiped here is wiped there only."""
    share = SHARES[index]
    return type(share).decode(share.encode())


@pytest.mark.proves("R061")
def test_the_share_that_makes_enough_gives_the_secret_once(releases: Releases) -> None:
    release_id = begun(releases)
    first = again(4)
    assert releases.give(release_id, "bob", first) is None
    assert releases.give(release_id, "cat", again(0)) is None
    secret = releases.give(release_id, "dan", again(2))
    assert secret is not None
    assert secret.reveal() == bytes(range(34))
    release = releases.get(release_id)
    assert (release.is_done, release.given_by) == (True, ("bob", "cat", "dan"))
    with pytest.raises(IllegalTransition, match="complete"):
        releases.give(release_id, "eve", again(1))
    assert releases._shares[release_id] == [], "nothing is kept of what was used"
    assert not any(first.value.reveal() + first.salt.reveal())


@pytest.mark.proves("R061")
def test_T14_nobody_gives_two_shares_and_no_share_counts_twice(releases: Releases) -> None:
    release_id = begun(releases)
    releases.give(release_id, "bob", again(0))
    for name in ("bob", "B0B", "Bob"):  # names that people confuse are one person
        with pytest.raises(NotPermitted, match="two shares"):
            releases.give(release_id, name, again(1))
    with pytest.raises(IllegalTransition, match="given already"):
        releases.give(release_id, "cat", again(0))
    releases.give(release_id, "7f3a", again(1), "cat")
    for name, over in (("cat", "cat"), ("9c1d", "cat"), ("7f3a", "dan")):  # nor does a token over one's own certificate
        with pytest.raises(NotPermitted, match="two shares"):
            releases.give(release_id, name, again(2), over)
    assert releases.get(release_id).given_by == ("bob", "7f3a")


def test_a_share_of_another_escrow_is_not_taken(releases: Releases) -> None:
    release_id = begun(releases)
    with pytest.raises(BadRequest, match="not what was handed out"):
        releases.give(release_id, "bob", STRANGE[0])
    assert releases.get(release_id).given_by == ()


def test_shares_do_not_wait_for_ever(releases: Releases, clock: VirtualClock) -> None:
    release_id, share = begun(releases), again(0)
    releases.give(release_id, "bob", share)
    clock.move_to(clock.monotonic_s() + 61)
    with pytest.raises(UnknownKey):
        releases.get(release_id)
    assert share.value.reveal() == bytes(34), "wiped"


def test_releases_that_wait_are_bounded(releases: Releases) -> None:
    for _ in range(RELEASES_MAX):
        begun(releases)
    with pytest.raises(BadRequest, match="wait already"):
        begun(releases)
    with pytest.raises(BadRequest):
        Releases(VirtualClock(), SystemEntropy(), 1.0).begin(
            "acme", type(RECORD)(escrow_id=b"", threshold=1, digests=(b"x", b"y")), requester="ann", reason="x"
        )
