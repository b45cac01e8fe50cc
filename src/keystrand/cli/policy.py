"""keystrand policy"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from keystrand.cli import exits
from keystrand.cli.options import FILE, config_option, json_option, print_json, site_of
from keystrand.cli.policy_flow import flow
from keystrand.cli.policy_relax import relax, restore
from keystrand.cli.terminal import complain, say
from keystrand.core.errors import BadRequest

if TYPE_CHECKING:
    from keystrand.kme.ask import Explanation


@click.group()
def command() -> None:
    """Say which applications may draw keys. What is not allowed is refused."""


command.add_command(relax)
command.add_command(restore)
command.add_command(flow)


@command.command("allow")
@click.argument("initiator", metavar="FROM")
@click.argument("responder", metavar="TO")
@config_option
@click.option("--quota-bps", default=0.0, help="Sustained draw in key bits per second; 0: no quota.")
@click.option("--quota-burst-bits", default=0, help="Bits that may be drawn at once after a pause.")
def allow(initiator: str, responder: str, config_file: Path, quota_bps: float, quota_burst_bits: int) -> None:
    """Let FROM draw hybrid keys shared with TO. Both sites must allow it.

    The rule fails closed: when keys run out, FROM is refused. Anything below hybrid needs a waiver with a name, a reason
    and an end, and failing open needs a fallback with its limits; write these into the file by hand.
    """
    from keystrand.config.founding import append_policy
    from keystrand.core.errors import ConfigError
    from keystrand.core.identity import check_name

    for name in (initiator, responder):
        check_name(name, what="SAE ID")
    if any((entry.initiator, entry.responder) == (initiator, responder) for entry in site_of(config_file).policy):
        hint = f"change its [[policy]] entry, and raise policy_serial; then: keystrand config check {config_file}"
        raise ConfigError(f"{initiator} to {responder} is allowed already", path=str(config_file), hint=hint)
    quota = (
        f"quota_bps = {quota_bps!r}\nquota_burst_bits = {quota_burst_bits}\n" if quota_bps or quota_burst_bits else ""
    )
    ends = f'from = "{initiator}"\nto = "{responder}"\n'
    append_policy(config_file, f'\n[[policy]]\n{ends}require = "hybrid"\non_exhaustion = "closed"\n{quota}')
    say(f"{initiator} may draw keys shared with {responder}; allow it at the other site too")
    say("a site that runs takes it up with a SIGHUP or a restart")


@command.command("list")
@config_option
@json_option
def show(config_file: Path, as_json: bool) -> None:
    """List who may draw keys shared with whom, and on which terms."""
    from keystrand.config.explain import terms

    for entry in site_of(config_file).policy:
        facts = {
            "from": entry.initiator,
            "to": entry.responder,
            "require": entry.require.label,
            "waived": bool(entry.waiver),
        }
        print_json(facts) if as_json else click.echo(f"{entry.initiator}  {entry.responder}  {terms(entry)}")


@command.command("explain")
@click.option("--as", "initiator", metavar="SAE", required=True, help="Who asks for keys.")
@click.option("--to", "responder", metavar="SAE", required=True, help="Whom they are shared with.")
@click.option("--number", type=int, help="How many keys; one where left out.")
@click.option("--size", "size_bits", type=int, help="Size of each in bits; the usual one where left out.")
@click.option("--at", "moment", metavar="TIME", help="When, RFC 3339 with time zone; now where left out.")
@config_option
@json_option
def explain(
    initiator: str,
    responder: str,
    number: int | None,
    size_bits: int | None,
    moment: str | None,
    config_file: Path,
    as_json: bool,
) -> int:
    """Tell whether a request would be served if there are bits: each check, what it found, and the line of the rule.

    The KME of this site runs the same checks. Exits with 1 where the request is refused.
    """
    from keystrand.config.verdict import standing, verdict

    config, now_s = site_of(config_file), _moment(moment)
    found = verdict(config, initiator, responder, number=number, size_bits=size_bits, now_s=now_s)
    policy = config.rules()
    facts = standing(policy, found.ask.rules[0]) if found.ask else []
    if as_json:
        print_json(_as_json(found, facts, policy.version))
    else:
        _tell(found, facts)
    return exits.OK if found.is_allowed else exits.REFUSED


def _moment(text: str | None) -> float:
    if text is None:
        return time.time()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"{text!r} is not a time such as 2030-01-31T18:00:00+01:00") from None
    if moment.tzinfo is None:
        raise BadRequest(f"{text!r} has no time zone", hint=f"write {text}Z or {text}+01:00")
    return moment.timestamp()


def _tell(found: Explanation, facts: list[tuple[str, str]]) -> None:
    for finding in found.findings:
        mark, place = "yes" if finding.passed else "NO ", f"  ({finding.source})" if finding.source else ""
        click.echo(f"{mark}  {finding.check:<10}  {finding.words}{place}")
    for name, words in facts:
        click.echo(f"     {name}: {words}")
    click.echo("allowed, if there are bits" if found.is_allowed else f"refused: {found.error}")
    if found.error is not None and found.error.hint:
        say(found.error.hint)


def _as_json(found: Explanation, facts: list[tuple[str, str]], version: str) -> dict[str, object]:
    return {
        "allowed": found.is_allowed,
        "policy": version,
        "findings": found.findings,
        "standing": dict(facts),
        "error": type(found.error).__name__ if found.error else None,
        "required": found.ask.required.label if found.ask else None,
        "floor": found.ask.floor.label if found.ask else None,
    }


@command.command("diff")
@click.argument("old", type=FILE)
@click.argument("new", type=FILE)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Tell what the policy of site file NEW would change beside that of OLD, and for whom. Changes nothing."""
    from keystrand.core.policy_change import changed_pairs, changes

    before, after = site_of(old).rules(), site_of(new).rules()
    for change in changes(before, after):
        place = f"  ({change.source})" if change.source else ""
        line = f"{change.subject}: {change.field}: {change.before} => {change.after}{place}"
        print_json(change) if as_json else click.echo(line)
    say(f"{before.version} => {after.version}: {len(changed_pairs(before, after))} pairs change")
    if after.serial <= before.serial and after.digest != before.digest:
        words = "lower" if after.serial < before.serial else "the same"
        complain(f"a site that runs with OLD refuses NEW: its serial is {words}", "raise site.policy_serial")
    if not before.may_change_at(time.time()):
        say(f"no change window is open now: {'; '.join(map(str, before.windows))}")


@command.command("check")
@config_option
@json_option
def check(config_file: Path, as_json: bool) -> int:
    """Tell every fault of the site's file; where there is none, the version of its policy and what deserves a look."""
    from keystrand.config.load import site_faults
    from keystrand.config.verdict import cautions

    faults = site_faults(config_file)
    for fault in faults:
        complain(str(fault), fault.hint)
    if faults:
        return exits.CONFIG
    policy = site_of(config_file).rules()
    told = list(cautions(policy, time.time()))
    if as_json:
        facts = {"serial": policy.serial, "digest": policy.digest, "rules": len(policy.rules), "cautions": told}
        print_json(facts | {"refused": sorted(" -> ".join(pair) for pair in policy.refused)})
        return exits.OK
    click.echo(f"policy {policy.version}: {len(policy.rules)} pairs, {len(policy.tenants)} tenants")
    for words in told:
        click.echo(f"caution: {words}")
    return exits.OK
