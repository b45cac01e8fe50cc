"""keystrand link attack, keystrand link drill"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from keystrand.cli import exits
from keystrand.cli.options import json_option, print_json
from keystrand.cli.terminal import say

if TYPE_CHECKING:
    from keystrand.qkd.profile import LinkProfile

ATTACKS: Final = ("intercept-resend", "pns", "blinding", "trojan", "time-shift", "source-tamper")
FAULTS: Final = ("fibre-cut", "loss-step", "polarisation-drift", "raman", "dark-count-rise", "sync-loss")
STRENGTH: Final = {
    "fibre-cut": 1.0,
    "loss-step": 2.0,
    "polarisation-drift": 1.0,
    "raman": 1.0,
    "dark-count-rise": 100.0,
    "sync-loss": 0.1,
}

_STRENGTH = click.option(
    "--strength", type=float, default=None, help="How strong; its meaning is in docs/concepts/optics.md."
)
_KM = click.option(
    "--km", "length_km", default=10.0, show_default=True, type=click.FloatRange(0, 200), help="Of fibre."
)
_SECONDS = click.option("--seconds", default=20.0, show_default=True, type=click.FloatRange(1, 3600), help="How long.")

_VACUUM = click.option(
    "--vacuum", is_flag=True, help="Vacuum pulses beside the weak decoys, and the bound of Lim et al. for them."
)


@click.command()
@click.argument("kind", type=click.Choice(ATTACKS))
@_STRENGTH
@_KM
@_SECONDS
@_VACUUM
@json_option
def attack(kind: str, strength: float | None, length_km: float, seconds: float, vacuum: bool, as_json: bool) -> int:
    """Attack a running pair of modules on this machine; what the monitors see, and what became key.

    Without --strength as strongly as gives Eve 5 % of the key. Exit status 1 where the attack was not called one, or bits of
    an attacked block came to both ends.
    """
    from keystrand.qkd.optics_attacks import ATTACKS as KINDS
    from keystrand.qkd.optics_attacks import strength_for

    profile = _profile(length_km, vacuum=vacuum)
    power = strength_for(KINDS[kind], profile, 0.05) if strength is None else strength
    facts = _run(profile, KINDS[kind](power), kind, power, seconds)
    _print(facts, as_json=as_json)
    stopped = facts["health"] == "attack" and not facts["bits_that_became_key_after"]
    return exits.OK if stopped else exits.REFUSED


@click.command()
@click.argument("kind", type=click.Choice(FAULTS))
@_STRENGTH
@_KM
@_SECONDS
@_VACUUM
@json_option
def drill(kind: str, strength: float | None, length_km: float, seconds: float, vacuum: bool, as_json: bool) -> int:
    """Let something go wrong with a running pair of modules on this machine; what the monitors make of it.

    Exit status 1 where it was called an attack.
    """
    from keystrand.qkd.optics_faults import FAULTS as KINDS

    power = STRENGTH[kind] if strength is None else strength
    facts = _run(_profile(length_km, vacuum=vacuum), KINDS[kind](power), kind, power, seconds)
    _print(facts, as_json=as_json)
    return exits.REFUSED if facts["health"] == "attack" else exits.OK


def _profile(length_km: float, *, vacuum: bool) -> LinkProfile:
    """A bright link whose blocks come every second or two."""
    from keystrand.qkd.profile import Distillation, Fibre, LinkProfile, Proof, Source

    source = Source(mu=0.4, nu=0.15, p_mu=0.3, p_vacuum=0.3, p_key_basis=0.6) if vacuum else Source()
    proof = Proof.LIM if vacuum else Proof.WIESEMANN
    return LinkProfile(
        source=source,
        fibre=Fibre(length_km=length_km, insertion_loss_db=1.0),
        distillation=Distillation(block_sifted_bits=262_144, eps_sec=1e-9, proof=proof),
    )


def _run(profile: LinkProfile, acting: Any, kind: str, strength: float, seconds: float) -> dict[str, Any]:
    import asyncio

    from keystrand.lab.linkdrill import LinkDrill

    with tempfile.TemporaryDirectory(prefix="keystrand-drill-") as folder:
        lab = LinkDrill(profile, Path(folder), say, acting, seconds)
        lab.facts |= {"what": f"{kind} of strength {strength:.3g}", "kind": kind, "strength": strength}
        lab.facts["intensities"] = profile.source.intensities
        return asyncio.run(lab.run())


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(facts)
        return
    for name, value in facts.items():
        if name != "what" and value is not None:
            click.echo(f"{name.replace('_', ' '):28}  {value}")
