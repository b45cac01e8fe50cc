"""The verbs of administrators against a site that runs: keys, jobs, approvals."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from test_admin_site import drawn, found
from test_site_pair import running

from keystrand.cli import exits
from keystrand.cli.program import run

CapSys = pytest.CaptureFixture[str]


async def test_administrators_work_from_the_command_line(
    tmp_path: Path, capsys: CapSys, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = found(tmp_path / "pair")
    file = pair.site_files["alpha"]

    async def verb(who: str, *words: str, status: int = exits.OK) -> list[str]:
        monkeypatch.setenv("KEYSTRAND_ADMIN", who)
        capsys.readouterr()
        result = await asyncio.to_thread(run, [*words, "--config", str(file)])
        told = capsys.readouterr()
        assert result == status, told
        # the site's own log shares this process's streams; what is asked for is here
        return [line for line in told.out.splitlines() if line]

    async with running(pair) as site:
        keys = await drawn(site)
        listed = [json.loads(line) for line in await verb("aud", "keys", "list", "--json")]
        assert sorted(key["key_id"] for key in listed) == sorted(keys)
        assert len(await verb("aud", "keys", "list", "--sae", "gateway-bravo", "--limit", "3")) == 3
        await verb("olga", "keys", "list", status=exits.REFUSED)
        await verb("nobody", "keys", "list", status=exits.CONFIG)
        use = f"/keystrand/v1/keys/{keys[1]}/use"
        answer = await site.clients["alpha"].request("POST", use, b'{"consumer": "tunnel west", "uses": 1}')
        assert (answer.status, answer.body) == (200, b'{"state":"active","rotation_due":false}')
        told = await verb("aud", "keys", "compromise", "--sae", "gateway-bravo", "--dry-run")
        assert [line.split() for line in told] == [
            ["4", "gateway-alpha", "->", "gateway-bravo"],
            ["gateway-alpha", "tunnel", "west", keys[1]],
        ]
        trial = json.loads((await verb("ann", "keys", "revoke", keys[0], "--dry-run", "--json"))[0])
        assert (trial["key_ids"], trial["consumers"]) == (keys[:1], [])
        assert await verb("ann", "keys", "revoke", keys[0], keys[1], "--reason", "drill") == keys[:2]
        answer = await site.clients["alpha"].request("POST", use, b'{"consumer": "tunnel west"}')
        assert answer.body == b'{"state":"deactivated","rotation_due":false}', "whoever uses it hears so"
        shown = await verb("aud", "keys", "show", keys[0], "--json")
        assert (json.loads(shown[0])["state"], json.loads(shown[0])["reason"]) == ("deactivated", "drill")
        await verb("ann", "keys", "revoke", "--reason", "drill", status=exits.REFUSED)
        await verb("ann", "keys", "resume", keys[0], "--reason", "drill", status=exits.REFUSED)
        (asked,) = await verb("ann", "keys", "destroy", "--sae", "gateway-bravo", "--reason", "over")
        assert asked in (await verb("bob", "approvals", "list"))[0]
        await verb("ann", "approvals", "approve", asked, "--reason", "mine", status=exits.REFUSED)
        done = json.loads((await verb("bob", "approvals", "approve", asked, "--reason", "seen"))[0])
        assert (done["stand"], done["moved"]) == ("executed", 2)
        states = [json.loads(line)["state"] for line in await verb("aud", "keys", "list", "--json")]
        assert sorted(states) == ["active", "active", "destroyed", "destroyed"]
        assert any("cryptoperiod" in line for line in await verb("olga", "jobs", "list"))
        assert json.loads((await verb("olga", "jobs", "run", "rotation"))[0])["last_error"] == ""
        document = tmp_path / "policy.toml"
        sites = '[saes."gateway-alpha"]\nsite = "alpha"\n[saes."gateway-bravo"]\nsite = "bravo"\n'
        document.write_text("policy_serial = 5\n" + sites)
        told = await verb("ann", "approvals", "policy", str(document), "--reason", "stop", "--dry-run")
        assert any("refused: not listed" in line for line in told)
        asked = (await verb("ann", "approvals", "policy", str(document), "--reason", "stop"))[-1]
        await verb("bob", "approvals", "reject", asked, "--reason", "no")
        assert site.nodes["alpha"].engine.kme.site.policy.serial == 1
