"""The status page in a real browser against a real server: live, self-contained, and usable by keyboard."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import status_demo
import uvicorn

from keystrand.console.page import status_app
from keystrand.core.events import Event
from keystrand.observe.feed import Feed
from keystrand.observe.gauges import HopGauge, NetworkGauge, PlaceGauge, WayGauge
from keystrand.observe.metrics import Metrics

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright (dev group)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs a Chromium browser: apt-get install chromium", allow_module_level=True)

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Served:
    url: str
    feed: Feed


@contextmanager
def serving(feed: Feed, metrics: Metrics) -> Iterator[Served]:
    status_demo.fill(feed, metrics)
    feed.update(status_demo.gauges(120, time.time()))
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(status_app(feed, metrics, site="alpha"), log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", feed)
    feed.close()
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive(), "open streams must not keep the server from stopping"


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(Feed("alpha"), Metrics()) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as play:
        launched = play.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@dataclass
class Visit:
    page: object
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(served: Served, browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    options = getattr(request, "param", {})
    context = browser.new_context(**options)
    seen = Visit(context.new_page())
    seen.page.on("request", lambda made: seen.requests.append(made.url))
    seen.page.on(
        "console", lambda said: seen.complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    seen.page.on("pageerror", lambda error: seen.complaints.append(str(error)))
    seen.page.goto(served.url)
    seen.page.wait_for_selector("#pulse[data-state=live]")
    yield seen
    context.close()


@pytest.mark.proves("R150")
def test_it_shows_the_site_and_says_what_is_simulated(visit: Visit) -> None:
    text = visit.page.inner_text("body")
    for part in ("alpha-bravo", "photons simulated", "X25519MLKEM768", "No alarms", "hybrid (QKD and ML-KEM)",
                 "What is measured, what is simulated", "Co-signed by a peer", "sae-gateway-a to sae-gateway-b"):  # fmt: skip
        assert part in text, part
    assert visit.page.locator("canvas").count() == 2


def test_it_asks_nobody_else_and_breaks_no_policy(visit: Visit, served: Served) -> None:
    assert {url.split("/")[2] for url in visit.requests} == {served.url.split("/")[2]}
    assert visit.complaints == []


def test_it_follows_the_site_live(visit: Visit, served: Served) -> None:
    served.feed.emit(Event("peer.down", time.time(), {"peer": "bravo", "reason": "timeout"}))
    served.feed.update(status_demo.gauges(130, time.time(), up=False))
    visit.page.wait_for_selector("#alarm-list li[data-severity=warning]")
    assert "Peer bravo is down (timeout)" in visit.page.inner_text("#events")
    assert "Warning" in visit.page.inner_text("#alarm-list")  # by word and sign, not by colour
    served.feed.update(status_demo.gauges(131, time.time()))
    visit.page.wait_for_selector("#alarm-list li[data-severity=calm]")


def test_the_numbers_behind_a_chart_are_reached_by_keyboard_and_stay_open(visit: Visit, served: Served) -> None:
    page = visit.page
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.className") == "skip"
    page.locator("#links summary").focus()
    page.keyboard.press("Enter")
    page.wait_for_selector("#links table")
    latest = status_demo.gauges(140, time.time())
    served.feed.emit(Event("link.block", time.time(), {"link": "alpha-bravo", "qber": 0.0456, "skr_bps": 8000.0}))
    served.feed.update(latest)
    page.wait_for_function("() => document.querySelector('#links table').textContent.includes('4.56 %')")
    assert page.evaluate("() => document.activeElement.tagName") == "SUMMARY"


@pytest.mark.parametrize(
    "visit",
    [{"viewport": {"width": 380, "height": 800}}, {"viewport": {"width": 380, "height": 800}, "color_scheme": "dark"}],
    indirect=True,
)
def test_it_fits_a_narrow_screen(visit: Visit) -> None:
    assert visit.page.evaluate("() => document.documentElement.scrollWidth") <= 380


CONTRAST = """() => {
  const rgb = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => { for (; node; node = node.parentElement) {
    const colour = rgb(getComputedStyle(node).backgroundColor); if (colour[3] !== 0) return colour; } return [255, 255, 255]; };
  const poor = [];
  for (const node of document.querySelectorAll("h1,h2,h3,p,dt,dd,th,td,caption,summary,li,a,.state,.tag,.label,.word")) {
    const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push(`${node.tagName}.${node.className} ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest.mark.parametrize("visit", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_text_has_the_contrast_that_WCAG_AA_asks_for(visit: Visit) -> None:
    assert visit.page.evaluate(CONTRAST) == []


def test_tunnels_are_listed_with_what_is_wrong_with_them(browser) -> None:
    feed = Feed("alpha")
    status_demo.fill_tunnels(feed)
    with serving(feed, Metrics()) as site:
        context = browser.new_context()
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_selector("#tunnels table")
        rows = [row.inner_text() for row in page.locator("#tunnels tbody tr").all()]
        assert page.evaluate(CONTRAST) == []
        alarms = page.inner_text("#alarm-list")
        context.close()
    backbone, branch, metro = rows
    for part in ("ipsec", "sae-gateway-b", "up", "hybrid", "31 s", "29 s", "1 min 2 s", "1.80 GB"):
        assert part in backbone, part
    assert "fallback" in branch and "ML-KEM" in branch and "pool is empty" in branch  # noqa: PT018
    assert "silent" in metro
    assert alarms.count("branch") == 1, "one alarm, and no second one for the event that began it"
    assert "metro: nothing is heard" in alarms


NETWORK = NetworkGauge(
    network="metro",
    places=(
        PlaceGauge(site="alpha", state="up"),
        PlaceGauge(site="bern", state="away"),
        PlaceGauge(site="chur", state="up", missing=("evidence (expired)",), lapsed=True),
        PlaceGauge(site="davos-" + "x" * 58, state="barred"),
    ),
    hops=(
        HopGauge(one="alpha", other="chur", state="up", bits=4_000_000, used=True),
        HopGauge(one="alpha", other="bern", state="away"),
        HopGauge(one="chur", other="davos-" + "x" * 58, state="closed"),
    ),
    hops_total=3,
    ways=(
        WayGauge(link="alpha-chur", ends=("alpha", "chur"), paths=1, routes=(("alpha", "chur"),)),
        WayGauge(link="alpha-bern", ends=("alpha", "bern"), paths=2),
    ),
)


@pytest.mark.proves("R097")
@pytest.mark.parametrize(("width", "scheme"), [(420, "dark"), (1280, "light")])
def test_the_network_is_seen_without_colour_and_on_any_width(browser, width: int, scheme: str) -> None:
    feed = Feed("alpha")
    with serving(feed, Metrics()) as site:
        feed.update(replace(status_demo.gauges(120, time.time()), network=NETWORK))
        feed.emit(Event("relay.saw", time.time(), {"link": "chur-essen", "seen": "whole", "bits": 262_144}))
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_selector("#network-ways table")
        page.wait_for_selector("#network-saw table")
        title, faults = page.inner_text("#network-title"), page.inner_text("#network-faults").splitlines()
        ways = [row.inner_text() for row in page.locator("#network-ways tbody tr").all()]
        label = page.get_attribute("#network-map svg", "aria-label")
        texts = [node.text_content() for node in page.locator("#network-map text").all()]
        dashes = {line.get_attribute("data-state"): line.evaluate("(at) => getComputedStyle(at).strokeDasharray")
                  for line in page.locator("#network-map line").all()}  # fmt: skip
        places = reached_by_tab(page)
        saw = page.inner_text("#network-saw")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(CONTRAST) == []
        context.close()
    assert title.lower() == "network metro: 4 sites, 3 hops"
    assert "✕ bern is away" in faults
    assert "◇ chur is not documented: evidence (expired)" in faults
    assert not [line for line in faults if "–" in line], "a hop of a site that is named is not named again"
    assert "1 of 1" in ways[0] and "alpha › chur" in ways[0]  # noqa: PT018
    assert "none of 2" in ways[1]
    assert label == "Map of 4 sites and 3 hops; the tables beside it say the same"
    assert texts == ["alpha", "✕ bern", "chur", "⊘ davos-xxxxxxx…"]
    assert len(set(dashes.values())) == 3, "lines are told apart without colour"
    assert "262 kbit" in saw and "blocks whole" in saw  # noqa: PT018
    assert any(name.startswith("Ways of the links") for name in places), "reached by keyboard"


REACHED = """() => [document.activeElement.getAttribute("aria-label") ?? document.activeElement.tagName,
  document.activeElement.innerText]"""


def reached_by_tab(page) -> dict[str, str]:
    """What stands in each place that Tab comes to, by its label; the pointer is never used."""
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the skip link
    places: dict[str, str] = {}
    for _ in range(40):
        page.keyboard.press("Tab")
        label, text = page.evaluate(REACHED)
        if label == "BODY":
            break
        places[label] = text
    return places


@pytest.mark.proves("R097")
def test_five_questions_of_an_incident_are_answered_by_keyboard_and_text(browser) -> None:
    feed = Feed("alpha")
    status_demo.fill_tunnels(feed)
    with serving(feed, Metrics()) as site:
        down_s = time.time()
        feed.emit(Event("peer.down", down_s, {"peer": "bravo", "reason": "timeout"}))
        feed.emit(
            Event("transfer.failed", time.time(), {"transfer_id": "7c0e", "peer": "sae-x", "reason": "peer is down"})
        )
        gauges = status_demo.gauges(130, time.time(), up=False)
        feed.update(replace(gauges, links=(replace(gauges.links[0], time_to_empty_s=130.0),)))
        context = browser.new_context()
        page = context.new_page()
        page.goto(site.url)
        page.wait_for_selector("#alarm-list li[data-severity=warning]")
        places = reached_by_tab(page)
        told = page.evaluate("(at) => new Date(at * 1000).toLocaleTimeString('en-GB')", down_s)
        alarms = page.inner_text("#alarm-list").splitlines()
        links = page.inner_text("#links")
        peers = page.inner_text("#peers")
        since = page.evaluate("(at) => new Date(at * 1000).toLocaleString('en-GB')", gauges.peers[0].since_s)
        context.close()
    events = places["Events, newest first"].splitlines()
    (tunnels,) = (text for label, text in places.items() if "as their connectors report them" in label)
    # which link is affected, and which page says what to do
    assert any("alpha-bravo: link is down" in line for line in alarms)
    assert "operator: see docs/runbooks/link-down.md" in [line.strip() for line in alarms]
    # which tunnels are below their protection
    assert [line for line in alarms if "below its protection" in line and "branch" in line]
    assert any("branch" in line and "fallback" in line for line in tunnels.splitlines())
    # how long until keys run out
    assert "empty in 2 min 10 s" in links
    # what failed last
    failed = [line for line in events if "failed" in line]
    assert "Transfer 7c0e failed (peer is down)" in failed[0]
    # since when the peer is down: in its own place, however much has happened since
    assert f"Down since\t{since}" in peers or f"Down since\n{since}" in peers, peers
    assert [line for line in alarms if "bravo: peer does not answer since" in line]
    assert [line for line in events if told in line and "Peer bravo is down (timeout)" in line]


def test_a_lost_connection_is_said(browser, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.url)
    page.wait_for_selector("#pulse[data-state=live]")
    page.route("**/api/v1/events", lambda route: route.abort())
    page.reload()
    page.wait_for_selector("#pulse[data-state=lost]")
    context.close()
