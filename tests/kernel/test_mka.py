"""MKA of two wpa_supplicants over the kernel's MACsec: CAKs change, and what that costs; our MKA keys against theirs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.kernel.planes import Rig, pair_of, took_ms, under_load

from keystrand.core.errors import Unavailable
from keystrand.core.secret import Secret
from keystrand.crypto.macsec import check_icv, icv_key
from keystrand.lab.macsec import mka_stage
from keystrand.lab.wires import Wires
from keystrand.testing.connector_conformance import (
    Ends,
    block_stops_traffic_and_a_fresh_key_lets_it_pass_again,
    the_tunnel_outlives_its_connectors,
)
from keystrand.testing.tunnels import place_of
from keystrand.transport.macsec import mka
from keystrand.transport.macsec.connector import KIND
from keystrand.transport.macsec.wire import Wire
from keystrand.transport.tunnel.derive import derive
from keystrand.wire.mka import parse


@pytest.mark.proves("R083")
async def test_caks_change_and_traffic_comes_back(wires: Wires, tmp_path: Path, figure: Callable[..., None]) -> None:
    pair = pair_of(KIND, mka_stage(wires, tmp_path), tmp_path, rotate_s=12.0)
    async with pair.running():
        seen = await under_load(pair, wires, rotations=3, packets_per_s=200)
        seen.tell(figure, "MACsec under MKA (wpa_supplicant), kernel", took_ms(pair))
        outage_s = seen.report.lost / 200 / max(1, seen.rotations)
        figure("MKA: outage for each change of CAK", seconds=round(outage_s, 2))
    assert (seen.missed, seen.frames_in_clear) == (0, 0)
    assert outage_s < 6.0


async def test_their_mkpdus_are_those_that_our_keys_sign(wires: Wires, tmp_path: Path) -> None:
    ends = Ends(Rig(KIND, wires, mka_stage(wires, tmp_path), tmp_path))
    given = await ends.prepare(1)
    cak = derive(given[0], place_of(tmp_path, "responder"), kind="macsec", use="cak")
    ckn = mka.ckn_of(given[0])
    wire = Wire("wire", wires.names["b"], mka.ONLY_EAPOL)
    await ends.use(1)
    heard = parse(await wire.receive())
    wire.close()
    print(f"\nmkpdu: cak {cak.reveal().hex()} ckn {ckn.hex()} frame {(heard.signed + heard.icv).hex()}")
    assert heard.ckn == ckn
    check_icv(icv_key(cak, ckn), heard.signed, heard.icv)
    with pytest.raises(Exception, match="ICV"):
        check_icv(icv_key(Secret(bytes(32)), ckn), heard.signed, heard.icv)


async def test_another_cak_at_the_other_end_brings_the_old_one_back(
    wires: Wires, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = Ends(Rig(KIND, wires, mka_stage(wires, tmp_path), tmp_path))
    await ends.rotate(1)
    monkeypatch.setattr(mka, "SECURED_S", 5.0)
    await ends.prepare(2, same=False)
    with pytest.raises(Unavailable, match="no SAK"):
        await ends.at["initiator"].activate(2)
    monkeypatch.setattr(mka, "SECURED_S", 15.0)
    await ends.each(lambda end: end.drop(2))
    for _ in range(20):
        if await asyncio.to_thread(wires.reaches, "a", wait_s=0.5):
            break
        await asyncio.sleep(0.5)
    else:
        raise AssertionError("the CAK before has not come back")
    await ends.each(lambda end: end.close())


@pytest.mark.parametrize(
    "check", [block_stops_traffic_and_a_fresh_key_lets_it_pass_again, the_tunnel_outlives_its_connectors]
)
async def test_conformance(check: Callable[[Rig], object], wires: Wires, tmp_path: Path) -> None:
    """The others ask for traffic through every step, which one MKA at a time cannot give."""
    await check(Rig(KIND, wires, mka_stage(wires, tmp_path), tmp_path))  # type: ignore[misc]
