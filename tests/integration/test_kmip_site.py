"""A real site's keys over KMIP: an SAE finds, reads and ends what it shares, with PyKMIP's client and with our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from test_site_pair import DEC, ENC, Running, running, settled

from keystrand.config.founding import append
from keystrand.config.load import load_site
from keystrand.core.errors import IllegalTransition, UnknownKey
from keystrand.core.register import Scope
from keystrand.core.states import State
from keystrand.lab.pair import Pair, found_pair
from keystrand.lab.ports import free_base_port
from keystrand.net.tls import TlsContexts, TlsFiles, TlsPolicy
from keystrand.observe.audit_verify import custody, rows_of
from keystrand.testing.patience import until
from keystrand.transport.kmip import KmipClient
from keystrand.wire import etsi014
from keystrand.wire import kmip_attributes as attributes
from keystrand.wire.kmip_names import Revocation

pytest.importorskip("kmip", reason="PyKMIP, the peer of these tests, is not installed")

from kmip.core import enums
from kmip.pie.client import ProxyKmipClient
from kmip.pie.exceptions import KmipOperationFailure

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:kmip")
T = TypeVar("T")


@asynccontextmanager
async def serving(folder: Path, extra: str) -> AsyncIterator[Running]:
    pair = found_pair(folder / "pair")
    base = free_base_port(2)
    for place, file in enumerate(pair.site_files.values()):
        append(file, f'\n[kmip]\nlisten = "127.0.0.1:{base + place}"\n{extra}\n')
    async with running(pair) as site:
        await site.feeder.feed(131_072, blocks=2)
        await settled(site)
        yield site


async def drawn(site: Running, number: int = 1) -> list[etsi014.Key]:
    answer = await site.clients["alpha"].request("POST", ENC, f'{{"number": {number}, "size": 256}}'.encode())
    assert answer.status == 200, answer.body
    return etsi014.parse_container(answer.body)


def client_of(pair: Pair, name: str) -> KmipClient:
    config = load_site(pair.site_files[name])
    assert config.gateway is not None
    assert config.kmip is not None
    files = TlsFiles(config.gateway.certificate, config.gateway.private_key, config.tls.trust)
    listen = config.kmip.listen
    return KmipClient(listen.host, listen.port, TlsContexts(files, TlsPolicy()), expect=("kme", config.site.kme_id))


async def use(pair: Pair, name: str, do: Callable[[KmipClient], T]) -> T:
    def work() -> T:
        with client_of(pair, name) as client:
            return do(client)

    return await asyncio.to_thread(work)


async def agreed(site: Running, key_id: str, state: State) -> None:
    """Until both ends have the key in this state."""
    await until(lambda: {node.engine.kme.lifecycle.get(key_id).state for node in site.nodes.values()} == {state})


async def test_I1_I4_a_responder_reads_its_copy_once_and_the_log_has_it(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as site:
        (key,) = await drawn(site)
        (found,) = await use(site.pair, "bravo", lambda client: client.locate(attributes.named(key.key_id)))
        assert found == key.key_id
        material = await use(site.pair, "bravo", lambda client: client.get(key.key_id))
        assert material.matches(key.material)
        with pytest.raises(UnknownKey):
            await use(site.pair, "bravo", lambda client: client.get(key.key_id))
        again = await site.clients["bravo"].request("GET", f"{DEC}?key_ID={key.key_id}")
        assert again.status == 400, "read by KMIP, so not to be had by ETSI GS QKD 014 any more"
        told = custody(rows_of(site.nodes["bravo"].store), key.key_id)
        delivered = [record for record in told if record["kind"] == "key.delivered"]
        assert [record["recipient"] for record in delivered] == ["gateway-bravo"]
        for node in site.nodes.values():
            assert node.engine.kme.check_ledger() == []


async def test_what_was_fetched_by_014_is_not_read_again_by_KMIP_and_the_drawer_has_no_second_copy(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "") as site:
        (key,) = await drawn(site)
        assert (await site.clients["bravo"].request("GET", f"{DEC}?key_ID={key.key_id}")).status == 200
        for name in ("alpha", "bravo"):
            with pytest.raises(UnknownKey):
                await use(site.pair, name, lambda client: client.get(key.key_id))
            assert await use(site.pair, name, lambda client: client.locate(attributes.named(key.key_id)))


async def test_I6_a_key_that_is_revoked_by_KMIP_is_released_nowhere_and_the_other_site_hears_of_it(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, "") as site:
        first, second = await drawn(site, 2)

        def end(client: KmipClient) -> None:
            with pytest.raises(IllegalTransition):
                client.destroy(first.key_id)
            client.revoke(first.key_id, Revocation.KEY_COMPROMISE, "lost laptop")
            client.destroy(first.key_id)
            client.revoke(second.key_id, Revocation.SUPERSEDED, "")

        await use(site.pair, "alpha", end)
        await agreed(site, first.key_id, State.DESTROYED)
        await agreed(site, second.key_id, State.DEACTIVATED)
        for key in (first, second):
            assert (await site.clients["bravo"].request("GET", f"{DEC}?key_ID={key.key_id}")).status == 400
            with pytest.raises(UnknownKey):
                await use(site.pair, "bravo", lambda client, key=key: client.get(key.key_id))
        told = custody(rows_of(site.nodes["alpha"].store), first.key_id)
        (compromised,) = [record for record in told if record["kind"] == "key.compromised"]
        assert compromised["actor"] == "sae gateway-alpha"
        assert "lost laptop" in str(compromised["reason"])


async def test_I8_keys_of_others_are_answered_as_keys_that_never_were(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as site:
        (key,) = await drawn(site)
        node = site.nodes["bravo"]
        record = node.engine.kme.lifecycle.get(key.key_id)
        with node.store.transaction():  # as if it were shared by others
            node.store.register.drop(key.key_id)
            node.store.register.add(record._replace(responders=("somebody-else",)))
        for key_id in (key.key_id, "22222222-76e0-4a66-a2bd-7ba0e5fd5a3c"):
            for verb in ("get", "activate", "destroy", "state"):
                with pytest.raises(UnknownKey, match="no such object"):
                    await use(site.pair, "bravo", lambda c, v=verb, k=key_id: getattr(c, v)(k))
        assert await use(site.pair, "bravo", lambda client: client.locate()) == []


async def test_PyKMIP_finds_reads_and_ends_a_key_of_a_real_site(tmp_path: Path) -> None:
    async with serving(tmp_path, 'minimum = "1.2"\nrequire_pqc_group = false') as site:
        keys = await drawn(site, 3)
        config = load_site(site.pair.site_files["bravo"])
        assert config.gateway is not None
        assert config.kmip is not None

        def work() -> tuple[list[str], bytes, str]:
            with ProxyKmipClient(
                hostname="127.0.0.1",
                port=config.kmip.listen.port,
                cert=str(config.gateway.certificate),
                key=str(config.gateway.private_key),
                ca=str(config.tls.trust),
                ssl_version="PROTOCOL_TLSv1_2",
                kmip_version=enums.KMIPVersion.KMIP_2_0,
            ) as client:
                found = client.locate()
                value = client.get(keys[0].key_id).value
                with pytest.raises(KmipOperationFailure) as twice:
                    client.get(keys[0].key_id)
                client.revoke(enums.RevocationReasonCode.CESSATION_OF_OPERATION, keys[0].key_id, "rotated")
                client.destroy(keys[0].key_id)
                return found, value, twice.value.reason.name

        found, value, reason = await asyncio.to_thread(work)
        assert set(found) >= {key.key_id for key in keys}
        assert value == keys[0].material.reveal()
        assert reason == "ITEM_NOT_FOUND"
        await agreed(site, keys[0].key_id, State.DESTROYED)


async def test_locate_shows_the_newest_first_and_pages(tmp_path: Path) -> None:
    async with serving(tmp_path, "") as site:
        made = []
        for _ in range(3):
            made += [key.key_id for key in await drawn(site)]
            await asyncio.sleep(0.02)
        node = site.nodes["alpha"]
        objects = [record.key_id for record in node.store.register.find(Scope(), None, 10, newest=True)]
        assert objects[:3] == made[::-1]
        assert (await use(site.pair, "alpha", lambda client: client.locate()))[:3] == made[::-1]


async def test_many_keys_of_others_do_not_hide_the_own_ones(tmp_path: Path) -> None:
    """The cost of a Locate over 20,000 foreign records is printed."""
    async with serving(tmp_path, "") as site:
        (key,) = await drawn(site)
        node = site.nodes["alpha"]
        record = node.engine.kme.lifecycle.get(key.key_id)
        with node.store.transaction():
            for number in range(20_000):
                foreign = record._replace(key_id=f"foreign-{number:08}", initiator="x", responders=("y",))
                node.store.register.add(foreign._replace(created_s=record.created_s + number))
        stalls_s, began_s = [0.0], time.perf_counter()
        search = asyncio.create_task(use(site.pair, "alpha", lambda client: client.locate()))
        while not search.done():
            asked_s = time.perf_counter()
            await node.engine.call(lambda kme: kme.site.store.epoch())
            stalls_s.append(time.perf_counter() - asked_s)
            await asyncio.sleep(0.001)
        assert await search == [key.key_id]
        took_s = time.perf_counter() - began_s
        assert max(stalls_s) < max(1.0, took_s / 2), "a search must not stop the site"
        print(f"Locate among 20,000 keys of others: {took_s:.2f} s; others wait {1000 * max(stalls_s):.0f} ms at most")
        by_name = await use(site.pair, "alpha", lambda client: client.locate(attributes.named(key.key_id)))
        assert by_name == [key.key_id]
