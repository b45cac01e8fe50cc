"""How every bench says what it measured: a table for people on stdout, the same rows as JSON in bench/out/."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

OUT: Final = Path(__file__).parent / "out"
FIELDS: Final = ("name", "value", "unit", "goal", "better", "met", "reference")
COLUMNS: Final = ("name", "value", "unit", "goal", "met", "reference", "note")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured figure.

    goal: the figure to reach, or None where the row is for information. better: which side of the goal is good.
    reference: a peer or a physical limit, measured in the same run: its name and value. note: how the goal was set.
    """

    name: str
    value: float
    unit: str
    goal: float | None = None
    better: Literal["higher", "lower"] = "higher"
    reference: tuple[str, float] | None = None
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.better == "higher" else self.value <= self.goal

    def as_json(self) -> dict[str, object]:
        name, value = self.reference or ("", 0.0)
        plain = asdict(self) | {"met": self.met, "reference": {"name": name, "value": value} if name else None}
        return {field: plain[field] for field in FIELDS}


def publish(name: str, rows: Sequence[Row], *, out: Path = OUT) -> bool:
    """Print the rows, write them to `out`/`name`.json, and say whether every goal is met."""
    print(table(rows))
    out.mkdir(parents=True, exist_ok=True)
    print(machine())
    (out / f"{name}.json").write_text(json.dumps([row.as_json() for row in rows], indent=2) + "\n")
    return all(row.met is not False for row in rows)


def table(rows: Sequence[Row]) -> str:
    """Fixed-width text, one line a row."""
    lines = [COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def machine() -> dict[str, object]:
    """What the figures were measured on."""
    return {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}


def _cells(row: Row) -> tuple[str, ...]:
    sign = ">=" if row.better == "higher" else "<="
    goal = "" if row.goal is None else f"{sign} {row.goal:.6g}"
    met = {True: "yes", False: "NO", None: ""}[row.met]
    beside = f"{row.reference[0]}: {row.reference[1]:.6g}" if row.reference else ""
    return (row.name, f"{row.value:.6g}", row.unit, goal, met, beside, row.note)
