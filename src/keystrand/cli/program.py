"""The root of all verbs, and the one place where errors become words and exit status."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from keystrand.cli import exits
from keystrand.cli.terminal import complain
from keystrand.cli.verbs import VerbGroup
from keystrand.core.errors import KeystrandError, PeerUnavailable

VERBS: Final = {
    "demo": "Run two sites, a QKD link and a file transfer on this machine.",
    "site": "Found a site, and export what other sites must know of it.",
    "link": "Join this site to another by a QKD link.",
    "peer": "Know other sites, with or without a QKD link to them.",
    "sae": "Add applications that may hold keys.",
    "policy": "Say which applications may draw keys.",
    "pki": "Issue and revoke certificates.",
    "config": "Check and explain configuration files.",
    "serve": "Run the key manager of a site.",
    "module": "Run one end of a simulated QKD link.",
    "status": "Show links, pools, peers and transfers of a running site.",
    "key": "Draw keys as an application does.",
    "admin": "Say who may administer a site.",
    "keys": "Find the keys of a running site, and suspend, revoke or destroy them.",
    "jobs": "See what a running site does by itself.",
    "approvals": "Decide on what other administrators propose.",
    "send": "Send a file or a directory to another site.",
    "receive": "Receive files and directories from other sites.",
    "transfer": "Plan transfers to another site.",
    "hsm": "Keep the root key of a site in a hardware security module.",
    "root": "Exchange the root key of a site.",
    "tenant": "Seal, unseal, rotate and erase the keys of tenants.",
    "escrow": "Share a secret of a site among custodians.",
    "backup": "Write a backup of a site while it runs.",
    "restore": "Put a backup back, under a new epoch.",
    "doctor": "Check everything that a site depends on, and say what to do.",
    "network": "Describe a network of trusted nodes, and say whom its keys trust.",
    "tunnel": "Run and watch tunnels under keys of this site.",
    "proxy": "Carry TCP connections through TLS under keys of a tunnel.",
    "plan": "Decide which links need QKD, PQC or hardening, and defend it.",
    "lab": "Try tunnels and networks of sites on this machine.",
    "audit": "Verify, export and search the audit log.",
    "conformance": "Test any KME against ETSI GS QKD 014.",
    "warmup": "Compile the number crunching ahead of its first use.",
}


SETTINGS: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=VerbGroup, verbs=VERBS, context_settings=SETTINGS)
@click.version_option(package_name="keystrand", prog_name="keystrand", message="%(prog)s %(version)s")
def root() -> None:
    """Quantum-safe keys: QKD, ML-KEM and classical secrets woven into managed keys for your applications.

    Start with `keystrand demo`.
    """


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line; the exit status."""
    try:
        result = root.main(args=arguments, prog_name="keystrand", standalone_mode=False)
        sys.stdout.flush()
        return result if isinstance(result, int) else exits.OK
    except KeystrandError as error:
        complain(str(error), error.hint or ("keystrand doctor" if isinstance(error, PeerUnavailable) else None))
        return exits.exit_of(error)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        complain(error.format_message(), f"{context.command_path} --help" if context else None)
        return exits.USAGE
    except (click.Abort, KeyboardInterrupt):
        return exits.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()  # whoever read us has left: nothing to add, and no complaint at interpreter exit
        return exits.REFUSED
    except OSError as error:
        complain(_disk_words(error))
        return exits.REFUSED


def _disk_words(error: OSError) -> str:
    what = error.strerror or str(error)
    return f"{error.filename}: {what}" if error.filename else what
