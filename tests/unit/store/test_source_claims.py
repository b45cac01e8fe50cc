"""What a site remembers of devices' keys: each once, by name and by bits, on either database; and what waits is sealed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keystrand.core.errors import BadRequest, Tampered, Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.seal import RootKey, Sealer
from keystrand.sources.device import DeviceKey
from keystrand.sources.journal import claim_of
from keystrand.store import sources as module
from keystrand.store.sources import BURNT, Claim
from keystrand.store.sql import SqlStore
from keystrand.store.sqlite import SqliteStore

Opening = Callable[[], SqlStore]
LINK = "fibre"


def key(name: str, bits: str = "") -> DeviceKey:
    return DeviceKey(name, Secret((bits or name).encode() * 8))


def claims(*names: str) -> list[Claim]:
    return [claim_of(key(name)) for name in names]


def pushed(*keys: DeviceKey) -> list[tuple[Claim, Secret]]:
    return [(claim_of(key), key.material) for key in keys]


def test_I1_a_key_is_claimed_once_by_its_name_and_by_its_bits(opening: Opening) -> None:
    store = opening()
    with store.transaction():
        store.sources.claim(LINK, 0, claims("a", "b"))
        store.sources.claim(LINK, 0, claims("a", "b"))  # the same block again: its first answer was not heard
        store.sources.claim("other link", 0, claims("a", "b"))
        for again in (claims("c", "a"), [claim_of(key("other", "b"))], [claim_of(key("a", "other"))]):
            with pytest.raises(BadRequest, match="before"):
                store.sources.claim(LINK, 1, again)
    store.close()
    store = opening()
    assert store.sources.known(LINK, ["a", "b", "c", "other"]) == {"a", "b"}
    keys = [key("c"), key("a"), key("d"), key("e", "c")]
    assert store.sources.came_before(LINK, [claim_of(key) for key in keys]) == ["a", "e"]
    assert [store.sources.kept_under(LINK, names) for names in (("a", "b"), ("b", "c"), ("c",))] == [0, BURNT, BURNT]
    with store.transaction():
        store.sources.burn(LINK, claims("c", "a"))
        store.sources.refuse(LINK, ["d"])
    assert store.sources.kept_under(LINK, ("a",)) == 0, "what was used stays used"
    assert store.sources.known(LINK, ["c", "d"]) == {"c", "d"}
    assert store.sources.last_name(LINK) == "d"
    store.close()


def test_it_forgets_the_oldest_and_stays_small(opening: Opening, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIMS_MAX", 4)
    store = opening()
    for number in range(12):
        with store.transaction():
            store.sources.claim(LINK, number, claims(f"k{number:02}"))
    assert store.sources.known(LINK, ["k07", "k08", "k11"]) == {"k08", "k11"}
    assert store._db.rows("SELECT count(*) FROM claims")[0][0] == 4
    store.close()


def test_I3_what_is_pushed_waits_over_a_restart_and_is_offered_in_the_same_portions(opening: Opening) -> None:
    store = opening()
    with store.transaction():
        assert store.sources.push(LINK, pushed(key("c"), key("a")), at_s=1.0, bits_max=999) == 128
    with store.transaction():
        assert [name for name, _ in store.sources.offer(LINK, 3)] == ["c", "a"]
        store.sources.push(LINK, pushed(key("b")), at_s=2.0, bits_max=999)
    store.close()
    store = opening()
    with store.transaction():
        assert [(name, secret.reveal()) for name, secret in store.sources.offer(LINK, 3)] == [
            ("c", b"c" * 8),
            ("a", b"a" * 8),
        ]
    assert [name for name, _ in store.sources.waiting(LINK, ["b", "x", "a"])] == ["b", "a"]
    with store.transaction():
        store.sources.claim(LINK, 0, claims("c", "a"))
        assert [name for name, _ in store.sources.offer(LINK, 3)] == ["b"]
        store.sources.burn(LINK, claims("b"))
        assert store.sources.offer(LINK, 3) == []
    store.close()


def test_a_push_that_is_repeated_is_no_fault_and_another_key_of_its_name_is_one(opening: Opening) -> None:
    store = opening()
    with store.transaction():
        store.sources.push(LINK, pushed(key("a"), key("b")), at_s=1.0, bits_max=192)
        store.sources.claim(LINK, 0, claims("a"))
        assert store.sources.push(LINK, pushed(key("a"), key("b"), key("c")), at_s=2.0, bits_max=192) == 128
        for odd in (key("b", "z"), key("z", "b"), key("a", "z"), key("z", "a")):
            with pytest.raises(BadRequest, match="before"):
                store.sources.push(LINK, pushed(key("d"), odd), at_s=2.0, bits_max=999)
        with pytest.raises(Unavailable):
            store.sources.push(LINK, pushed(key("d"), key("e")), at_s=2.0, bits_max=192)
        assert store.sources.burn_older(LINK, 1.5) == 64
        with pytest.raises(BadRequest, match="before"):
            store.sources.push(LINK, pushed(key("b")), at_s=2.0, bits_max=192)
    assert [name for name, _ in store.sources.waiting(LINK, ["a", "b", "c", "d"])] == ["c"]
    store.close()


def test_I14_after_a_restore_nothing_of_what_waited_is_used(opening: Opening) -> None:
    store = opening()
    with store.transaction():
        store.sources.push(LINK, pushed(*(key(f"k{n}") for n in range(3000))), at_s=1.0, bits_max=1 << 30)
        assert store.sources.burn_waiting() == sum(key(f"k{n}").material.length_bits for n in range(3000))
        assert store.sources.offer(LINK, 9) == []
        assert store.sources.known(LINK, ["k0", "k2999"]) == {"k0", "k2999"}
    store.close()


def test_I12_what_waits_is_sealed_for_its_row(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "site.db", Sealer(RootKey.generate()))
    with store.transaction():
        store.sources.push(LINK, pushed(key("a"), key("b")), at_s=1.0, bits_max=999)
    pages = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"a" * 8 not in pages
    assert (b"a" * 8).hex().encode() not in pages
    (one,), (other,) = store._db.rows("SELECT material FROM pushed ORDER BY number")
    with store.transaction():
        store._db.write("UPDATE pushed SET material = ? WHERE name = 'b'", (one,))
    with pytest.raises(Tampered), store.transaction():
        store.sources.offer(LINK, 9)
    assert one != other
    store.close()
