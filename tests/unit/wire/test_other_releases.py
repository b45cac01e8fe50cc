"""Messages between sites of different releases: what an older one says is read, what a newer one says is passed over or on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import inspect

from keystrand.core.errors import OtherRelease, PeerFault, Tampered
from keystrand.core.release import release
from keystrand.relay.atlas import Atlas, SiteFacts
from keystrand.relay.linkstate import LinkState
from keystrand.relay.ports import Say
from keystrand.relay.relay import Relay
from keystrand.testing.clock import SeededEntropy, VirtualClock
from keystrand.testing.network.post import sign_as, verify
from keystrand.wire import classical, device, peer, relay
from keystrand.wire.etsi020_way import WAY, Stop, read_way, with_way

# adverts of one site as three earlier states of the code wrote them: without windows, without wants, and with all of it
WITHOUT_WINDOWS = bytes.fromhex(
    "85a174a6616476657274a473697465a162a66e756d626572ce692a2650a57370616e739293a161ce000f4240cd4e2093a164ce0001000000a97369676e"
    "6174757265c420708791b2ba3193a25476a2a19388b43bc8116346a1df2d2e80849e5561430c7c"
)
WITHOUT_WANTS = bytes.fromhex(
    "87a174a6616476657274a473697465a162a66e756d626572ce692a2650a57370616e739293a161ce000f4240cd4e2093a164ce0001000000a777696e64"
    "6f77739195a3772d31a164ce692a4d60ce692a5b70c3a56e656564739196a161a3772d39a3612d640a14ffa97369676e6174757265c420b9dee6aae755"
    "f627005675f005dcaa2286b5f88f97682bad2af826094055b8fb"
)
WHOLE = bytes.fromhex(
    "88a174a6616476657274a473697465a162a66e756d626572ce692a2650a57370616e739293a161ce000f4240cd4e2093a164ce0001000000a777696e64"
    "6f77739195a3772d31a164ce692a4d60ce692a5b70c3a56e656564739196a161a3772d39a3612d640a14ffa577616e74739193a3622d63cd1000c3a973"
    "69676e6174757265c420c951f810751922e3c0f0dcf1204f37c73f7e7ad500ea35f0fb73e8ecff3b7efc"
)
ATLAS = Atlas({name: SiteFacts(name=name) for name in "abcd"}, (("a", "b"), ("b", "d"), ("a", "c"), ("c", "d")))
SPANS = (relay.Span("a", 1_000_000, 20_000), relay.Span("d", 65_536, 0))
GROWS: dict[type[msgspec.Struct], Callable[[bytes], Any]] = {
    peer.Message: lambda frame: peer.decode(msgspec.msgpack.encode([msgspec.Raw(frame)]))[0],
    relay.RelayMessage: relay.decode,
    device.DeviceMessage: device.decode,
    classical.ClassicalMessage: classical.decode,
}
KINDS = [(base, kind) for base in GROWS for kind in base.__subclasses__()]


def at(site: str) -> Relay:
    clock = VirtualClock()
    state = LinkState(site, ATLAS, clock, sign_as(site), verify)
    found = Relay(site, ATLAS, state, clock=clock, entropy=SeededEntropy(site))
    for neighbour in sorted(ATLAS.neighbours(site)):
        found.up(neighbour, 10**6, 1000)
    found.drain()
    return found


def passed_on(site: Relay, neighbour: str, frame: bytes) -> Iterator[bytes]:
    site.hear(neighbour, relay.decode(frame))
    return (relay.encode(order.message) for order in site.drain() if isinstance(order, Say))


@pytest.mark.parametrize("frame", [WITHOUT_WINDOWS, WITHOUT_WANTS, WHOLE])
def test_what_earlier_releases_wrote_is_read_verifies_and_goes_on_unchanged(frame: bytes) -> None:
    middle = at("d")
    assert list(passed_on(middle, "b", frame)) == [frame]  # to c
    advert = middle.state.adverts["b"]
    assert advert.spans == SPANS
    assert bool(advert.windows) == (frame is not WITHOUT_WINDOWS)
    assert bool(advert.wants) == (frame is WHOLE)
    assert list(passed_on(at("c"), "d", frame)) == [frame], "it verifies there too"


def test_what_we_write_is_what_the_release_before_reads() -> None:
    ours = relay.decode(WHOLE)
    assert isinstance(ours, relay.SignedAdvert)
    assert relay.encode(relay.signed(ours.advert, sign_as("b"))) == WHOLE


def later(**more: object) -> bytes:
    """An advert of a release that says more: signed as ever, over all that it says."""
    fields = {
        name: msgspec.Raw(raw) for name, raw in msgspec.msgpack.decode(WHOLE, type=dict[str, msgspec.Raw]).items()
    }
    said = {name: value for name, value in fields.items() if name not in ("t", "signature")} | more
    signature = sign_as("b")(msgspec.msgpack.encode(list(said.values())))
    return msgspec.msgpack.encode({"t": "advert", **said, "signature": signature})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.text("xyz_", min_size=3, max_size=8)


@given(st.dictionaries(NAMES, ANYTHING, min_size=1, max_size=4))
def test_what_a_later_release_adds_goes_through_sites_behind_it_and_verifies(more: dict[str, Any]) -> None:
    frame = later(**more)
    site, neighbour = at("d"), "b"
    for following, before in (("c", "d"), ("a", "c")):
        assert list(passed_on(site, neighbour, frame)) == [frame]
        assert site.state.adverts["b"].spans == SPANS
        site, neighbour = at(following), before


def test_no_relay_can_change_rename_or_leave_out_what_was_signed() -> None:
    whole = msgspec.msgpack.decode(later(loads=[1, 2]))
    renamed = {("xants" if name == "wants" else name): value for name, value in whole.items()}
    turned = {
        name: whole[name]
        for name in ("t", "site", "number", "windows", "spans", "needs", "wants", "loads", "signature")
    }
    swapped = whole | {"windows": whole["needs"]}
    without = {name: value for name, value in whole.items() if name != "loads"}
    for changed in (renamed, turned, without, swapped, whole | {"loads": [1, 3]}):
        with pytest.raises(PeerFault):
            at("d").hear("b", relay.decode(msgspec.msgpack.encode(changed)))
    with pytest.raises(Tampered):
        at("d").hear("b", relay.decode(msgspec.msgpack.encode(without)))
    with pytest.raises(PeerFault, match="too long"):
        relay.decode(later(loads=bytes(relay.ADVERT_BYTES_MAX)))


# every kind of message ------------------------------------------------------------------------------------------------


def example(kind: inspect.Type) -> Any:
    """The least value of this type."""
    if isinstance(kind, inspect.StructType):
        return kind.cls(**{field.name: example(field.type) for field in kind.fields})
    if isinstance(kind, inspect.VarTupleType):
        return tuple(example(kind.item_type) for _ in range(max(1, kind.min_length or 0)))
    if isinstance(kind, inspect.TupleType):
        return tuple(map(example, kind.item_types))
    if isinstance(kind, inspect.DictType):
        return {example(kind.key_type): example(kind.value_type)}
    if isinstance(kind, inspect.UnionType):
        return None
    if isinstance(kind, inspect.IntType):
        return max(1, int(kind.ge or 0))
    if isinstance(kind, inspect.StrType):
        return "x" * max(1, kind.min_length or 0)
    if isinstance(kind, inspect.BytesType):
        return b"x" * max(1, kind.min_length or 0)
    return {inspect.FloatType: 1.0, inspect.BoolType: True}[type(kind)]


def grown(value: Any, draw: Callable[[st.SearchStrategy[Any]], Any]) -> Any:
    """With something unknown at the end of every structure that may grow."""
    if isinstance(value, tuple):
        return [grown(item, draw) for item in value]
    if not isinstance(value, msgspec.Struct):
        return value
    fields = {name: grown(getattr(value, name), draw) for name in value.__struct_fields__}
    if value.__struct_config__.array_like:
        return [*fields.values(), *([] if isinstance(value, relay.Place) else [draw(ANYTHING)])]
    return {"t": value.__struct_config__.tag, **fields, **draw(st.dictionaries(NAMES, ANYTHING, max_size=3))}


@pytest.mark.parametrize(("base", "kind"), KINDS)
@settings(max_examples=12)
@given(st.data())
def test_unknown_fields_anywhere_are_passed_over(base: Any, kind: type[msgspec.Struct], data: st.DataObject) -> None:
    message = example(inspect.type_info(kind))
    if isinstance(message, relay.Advert):
        return  # signed: see above
    if isinstance(message, peer.Hello):
        message = msgspec.structs.replace(message, version=peer.VERSION)
    assert GROWS[base](msgspec.msgpack.encode(grown(message, data.draw))) == message


@pytest.mark.parametrize(("base", "kind"), KINDS)
def test_what_is_missing_at_the_end_has_its_default(base: Any, kind: type[msgspec.Struct]) -> None:
    message = example(inspect.type_info(kind))
    given_up = {field.name: field.default for field in msgspec.structs.fields(kind) if not field.required}
    older = {
        name: value
        for name, value in msgspec.to_builtins(message, builtin_types=(bytes,)).items()
        if name not in given_up
    }
    read = GROWS[base](msgspec.msgpack.encode(older))
    read = read.advert if isinstance(read, relay.SignedAdvert) else read
    assert read == msgspec.structs.replace(message, **given_up)


@given(st.dictionaries(NAMES, ANYTHING, max_size=3))
def test_a_kind_that_only_a_later_release_has_is_passed_over(more: dict[str, Any]) -> None:
    known = {"t": "heard", "notice_id": "n"}
    assert peer.decode(msgspec.msgpack.encode([{"t": "harken", **more}, known])) == [peer.Heard(notice_id="n")]
    assert relay.decode(msgspec.msgpack.encode({"t": "advert-2", **more})) is None
    for broken in ({"t": 7, **more}, {**more}, [more], "t"):
        with pytest.raises(PeerFault):
            peer.decode(msgspec.msgpack.encode([broken, known]))
        with pytest.raises(PeerFault):
            relay.decode(msgspec.msgpack.encode(broken))


def test_a_release_that_means_something_else_is_refused_and_both_are_named() -> None:
    hello = {"t": "hello", "version": peer.VERSION + 1, "release": "7.1.0", "site": {"name": "b"}}
    for more in ([], [{"t": "heard", "notice_id": 5}], [{"t": "reserve"}]):
        with pytest.raises(OtherRelease) as refused:
            peer.decode(msgspec.msgpack.encode([hello, *more]))
        assert "7.1.0" in str(refused.value)
        assert release() in str(refused.value)
        assert "networks.md" in str(refused.value.hint)
    with pytest.raises(OtherRelease, match="does not say which"):
        peer.check_version(peer.Hello(version=0, site="b", epoch=1, op_sent=0, token=0, echo=0))


@given(st.lists(ANYTHING, max_size=3))
def test_what_a_later_release_says_of_a_stop_is_passed_on(more: list[Any]) -> None:
    stops = read_way({WAY: msgspec.json.encode([["kme-a", "One", *more], ["kme-b", ""]])})
    assert stops == (Stop("kme-a", "One"), Stop("kme-b", ""))
    assert stops is not None
    again = msgspec.json.decode(with_way({}, (*stops, Stop("kme-c", "")))[WAY])
    assert again == msgspec.json.decode(msgspec.json.encode([["kme-a", "One", *more], ["kme-b", ""], ["kme-c", ""]]))
