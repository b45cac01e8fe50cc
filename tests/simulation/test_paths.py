"""Who lives on which link, from a real site's files; and what they are told when its way changes, in virtual time."""

from __future__ import annotations

import base64
import json
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from keystrand.cli.program import root
from keystrand.config.depends import dependence
from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.config.schema import SiteConfig
from keystrand.core.errors import BadRequest
from keystrand.core.events import Event, Scalar
from keystrand.lab.network import NetworkLab, hop_name
from keystrand.node.paths import Paths
from keystrand.relay.damping import HALF_LIFE_S
from keystrand.relay.routes import Route
from keystrand.testing.clock import EPOCH_S
from keystrand.testing.network.maps import network_text
from keystrand.testing.network.world import Network
from keystrand.wire.relay import SignedAdvert, Window, decode

SQUARE = network_text("ab bd ac cd", ad="")
TUNNEL = f"""
[saes.vpn-a]
site = "a"
[saes.vpn-d]
site = "d"
[[policy]]
from = "vpn-a"
to = "vpn-d"
on_exhaustion = "closed"
[tunnel.west]
kind = "wireguard"
peer = "d"
sae = "vpn-a"
peer_sae = "vpn-d"
connect = "192.0.2.7:7000"
on_exhaustion = "fail-closed"
[tunnel.west.wireguard]
interface = "wgw"
private_key = "wg.key"
peer_public_key = "{base64.b64encode(b"k" * 32).decode()}"
allowed_ips = ["10.2.0.0/16"]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Site a of a square of sites, with a tunnel to d, which it reaches over relays alone."""
    folder = tmp_path_factory.mktemp("square")
    (folder / "square.toml").write_text(SQUARE)
    lab = NetworkLab(folder / "square.toml", folder / "lab", lambda text: None)
    lab.found()
    key = lab.files["a"].parent / "wg.key"
    key.touch(0o600)
    key.write_text(base64.b64encode(b"p" * 32).decode())
    append(lab.files["a"], TUNNEL)
    return lab.files["a"]


class Told:
    """A sink that remembers what was said of paths."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def emit(self, event: Event, /) -> None:
        self.events.append(event)

    def take(self) -> list[tuple[str, dict[str, Scalar]]]:
        events, self.events = self.events, []
        return [(event.kind, dict(event.fields)) for event in events]


class Seen:
    """The network in virtual time, and what site a says of the paths of its links."""

    def __init__(self, config: SiteConfig) -> None:
        assert config.network is not None
        self.world = Network(1, config.network.atlas())
        self.told = Told()
        self.paths = Paths(config, self.world.clock, self.told)
        self.world.begin()
        self.wait(30.0)
        assert self.told.take() == [], "a start is no change"

    def wait(self, for_s: float) -> None:
        until_s = self.world.clock.monotonic_s() + for_s
        while self.world.clock.monotonic_s() < until_s:
            self.world.schedule.run_until(self.world.clock.monotonic_s() + 1.0)
            relay = self.world.posts["a"].relay
            assert relay is not None
            self.paths.look(relay)
            self.paths.settle()

    def routes(self) -> list[Route]:
        relay = self.world.posts["a"].relay
        assert relay is not None
        return relay.sender.routes(relay.atlas.links["a-d"], spare=0)

    def flap(self, hop: frozenset[str], times: int) -> None:
        """Gone for three seconds, back for three."""
        for _ in range(times):
            self.world.cut.add(hop)
            self.wait(3.0)
            assert all(hop != {*step} for route in self.routes() for step in pairwise(route)), (
                "a dead hop is left at once"
            )
            self.world.cut.discard(hop)
            self.wait(3.0)


@pytest.mark.proves("R085")
def test_the_map_goes_from_a_link_over_its_relays_to_tunnel_and_service(file: Path) -> None:
    found = dependence(load_site(file))
    (feed,) = found.over("a-d")
    assert feed.relays == ("b",)
    assert found.over("d") == (feed,), "by the site at its other end"
    assert {one.link for one in found.over("b")} == {"a-d", hop_name(("a", "b"))}, "by its relay"
    assert feed in found.over(hop_name(("a", "b"))), "and by the hop that it goes over"
    assert feed not in found.over(hop_name(("a", "c")))
    tunnel = next(one for one in found.drawing((feed,)) if one.kind == "tunnel")
    assert (tunnel.name, tunnel.need, tunnel.without) == ("west", "hybrid", "fail-closed")
    assert tunnel.service.startswith("vpn-a tenant=")
    with pytest.raises(BadRequest, match="nothing here depends on nowhere"):
        found.over("nowhere")


@pytest.mark.proves("R085")
def test_the_command_names_the_tunnel_that_lives_on_a_relay(file: Path) -> None:
    told = CliRunner().invoke(root, ["network", "depends", "b", "--config", str(file)], standalone_mode=False)
    assert told.exit_code == 0, told.output
    assert "west" in told.output
    assert "a-d goes a > b > d" in told.output
    assert "without a-d, d is fed by nothing" in told.output
    plain = CliRunner().invoke(root, ["network", "depends", "a-d", "--json", "--config", str(file)])
    (feed,) = json.loads(plain.stdout)
    assert {"west", "vpn-a > vpn-d"} <= {one["name"] for one in feed["dependents"]}


@pytest.mark.proves("R085")
def test_a_relay_drained_and_another_barred_tell_whose_path_changes(file: Path) -> None:
    seen = Seen(load_site(file))
    begins_s = int(EPOCH_S + seen.world.clock.monotonic_s())
    window = Window("w", "", begins_s, begins_s + 600, draining=True)
    seen.world.posts["b"].windows = (window,)
    seen.wait(5.0)
    ((kind, fields),) = seen.told.take()
    assert kind == "path.changed"
    assert (fields["before"], fields["now"], fields["tunnels"]) == ("a > b > d", "a > c > d", "west")
    assert "vpn-a tenant=" in str(fields["services"])
    relay = seen.world.posts["a"].relay
    assert relay is not None
    relay.state.barred = frozenset({"c"})
    seen.wait(2.0)
    ((kind, fields),) = seen.told.take()
    assert (kind, fields["now"], fields["tunnels"]) == ("path.lost", "no route", "west")
    seen.world.posts["b"].windows = (msgspec.structs.replace(window, draining=False),)
    seen.wait(5.0)
    ((kind, fields),) = seen.told.take()
    assert (kind, fields["now"]) == ("path.changed", "a > b > d"), "and back"


@pytest.mark.proves("R085")
def test_a_hop_that_goes_elsewhere_in_the_network_is_noticed_here(file: Path) -> None:
    seen = Seen(load_site(file))
    seen.world.cut.add(frozenset(("b", "d")))
    seen.wait(10.0)
    ((kind, fields),) = seen.told.take()
    assert (kind, fields["link"], fields["now"], fields["tunnels"]) == ("path.changed", "a-d", "a > c > d", "west")


@pytest.mark.proves("R085")
def test_a_link_whose_module_goes_is_told_once_and_again_when_it_is_back(file: Path) -> None:
    config = load_site(file)
    told, link = Told(), hop_name(("a", "b"))
    paths = Paths(config, Network(1, config.network.atlas()).clock, told)  # type: ignore[union-attr]
    for kind in ("link.up", "link.down", "link.down", "link.up"):
        paths.emit(Event(kind, EPOCH_S, {"link": link}))
    (lost, fields), (back, _) = told.take()
    assert (lost, back) == ("path.lost", "path.changed"), "b is fed by this hop alone"
    assert (fields["link"], fields["cause"], fields["others"]) == (link, "link.down", "")
    assert fields["tunnels"] == "", "the tunnel goes to d, and its way is watched by its routes"


@pytest.mark.proves("R085", "R036")
def test_a_hop_that_flaps_is_told_a_few_times_and_its_end_once(file: Path) -> None:
    """Half an hour, three hundred changes: routes leave at each, people hear of a few, and of how it is in the end."""
    seen = Seen(load_site(file))
    seen.world.listening = True
    seen.flap(frozenset(("a", "b")), 3)
    assert 0 < len(seen.told.take()) < 9
    seen.world.frames.clear()
    seen.flap(frozenset(("a", "b")), 300)
    kinds = [kind for kind, _ in seen.told.take()]
    adverts = {
        (said.advert.site, said.advert.number)
        for _, _, frame in seen.world.frames
        if isinstance(said := decode(frame), SignedAdvert)
    }
    assert len(kinds) < 6, kinds
    own = [number for site, number in adverts if site in "ab"]
    assert len(own) < 200, "it is not said anew each time that the hop is there"
    seen.wait(4 * HALF_LIFE_S)
    assert seen.routes() == [("a", "b", "d")], "back in use"
    told = seen.told.take()
    assert told[-1][1]["now"] == "a > b > d", told
    seen.world.cut.add(frozenset(("a", "b")))
    seen.wait(3.0)
    ((kind, fields),) = seen.told.take()
    assert (kind, fields["now"]) == ("path.changed", "a > c > d"), "and told at once again"


@pytest.mark.proves("R085")
def test_a_module_that_flaps_is_unsteady_once_and_told_when_it_rests(file: Path) -> None:
    config = load_site(file)
    told, link = Told(), hop_name(("a", "b"))
    assert config.network is not None
    clock = Network(1, config.network.atlas()).clock
    paths = Paths(config, clock, told)
    for number in range(200):
        paths.emit(Event(("link.down", "link.up")[number % 2], EPOCH_S, {"link": link}))
        clock.move_to(clock.monotonic_s() + 2.0)
        paths.settle()
    assert [kind for kind, _ in told.take()] == ["path.lost", "path.changed", "path.lost", "path.unsteady"]
    paths.emit(Event("link.down", EPOCH_S, {"link": link}))
    clock.move_to(clock.monotonic_s() + 70.0)
    paths.settle()
    ((kind, fields),) = told.take()
    assert (kind, fields["now"], fields["held"]) == ("path.lost", "carries none", 198), (
        "as it is, and how often it was not"
    )
