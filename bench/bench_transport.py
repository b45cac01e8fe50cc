"""Tunnels of every kind under keys of two real sites: `python -m bench.bench_transport --kinds wireguard --parts rotate`.

Needs root. The key managers and both tunnel ends are programs as an operator runs them; a feeder stands in for the QKD modules.
--path puts a folder in front of PATH, for another wireguard-go than the system's. MACsec is the kernel's where it has one, else
two programs in Python; each row of `rotate` names which.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable

from bench.report import Row, publish
from bench.transport_drill import drill
from bench.transport_many import many
from bench.transport_rotate import rotate
from bench.transport_speed import minimum, throughput
from keystrand.lab.wires import why_not

KINDS = ("wireguard", "ipsec", "tls", "macsec")


def main() -> int:
    words = arguments()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    if words.path:
        os.environ["PATH"] = f"{words.path}:{os.environ['PATH']}"
    parts: dict[str, Callable[[str], list[Row]]] = {
        "rotate": lambda kind: rotate(kind, words.seconds, words.rotate_s, words.packets_per_s),
        "minimum": lambda kind: asyncio.run(minimum(kind, words.rounds)),
        "throughput": lambda kind: asyncio.run(throughput(kind, 22.0, 10.0, max(1, words.rounds // 10))),
        "closed": lambda kind: drill(kind, words.runs, "fail-closed"),
        "fallback": lambda kind: drill(kind, words.runs, "fallback:pqc"),
    }
    met = True
    if "many" in words.parts:
        met &= publish("transport_many", many(words.tunnels, 30.0, words.many_seconds))
    for part in [part for part in words.parts if part != "many"]:
        for kind in words.kinds:
            met &= publish(f"transport_{part}_{kind}", parts[part](kind))
    return 0 if met else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--parts", nargs="+", default=("rotate", "minimum", "throughput", "closed", "fallback", "many"))
    parser.add_argument("--seconds", type=float, default=600.0, help="of a rotation run")
    parser.add_argument("--rotate-s", type=float, default=2.0)
    parser.add_argument("--packets-per-s", type=int, default=1000)
    parser.add_argument("--runs", type=int, default=100, help="of each drill")
    parser.add_argument("--rounds", type=int, default=40, help="of minimum; a tenth as many of throughput")
    parser.add_argument("--tunnels", type=int, default=200, help="of many")
    parser.add_argument("--many-seconds", type=float, default=120.0)
    parser.add_argument("--path", default="")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
