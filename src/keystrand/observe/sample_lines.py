"""Gauges and counters as the lines that a scrape gets (Prometheus text format 0.0.4), printed anew only where they changed.

A site with a thousand links has some thirty thousand of them, and few change from one second to the next.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from prometheus_client.utils import floatToGoString

from keystrand.observe.metric_table import Metric

_COUNTING = threading.Lock()
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


class SampleLine:
    """One gauge or counter with its labels."""

    __slots__ = ("_stem", "_text", "_value")

    def __init__(self, stem: str, value: float = 0.0) -> None:
        self._stem = stem
        self._value = value
        self._text = ""

    def inc(self, amount: float = 1, /) -> None:
        """Under a lock: two threads that count at once must both be counted."""
        with _COUNTING:
            self._value += amount
            self._text = ""

    def set(self, value: float, /) -> None:
        if value != self._value:
            self._value, self._text = value, ""

    def text(self) -> str:
        value, text = self._value, self._text
        if not text:
            text = f"{self._stem} {floatToGoString(value)}\n"  # type: ignore[no-untyped-call]
            if value == self._value:  # else another thread has set it meanwhile
                self._text = text
        return text


class SampleLines:
    """All lines of one metric. bounded: takes labels that are new, and gives those under which to keep them."""

    def __init__(self, metric: Metric, bounded: Callable[[tuple[str, ...], int], tuple[str, ...]]) -> None:
        self._name = metric.name
        self._labels = metric.labels
        self._bounded = bounded
        escaped = metric.text.replace("\\", r"\\").replace("\n", r"\n")
        self._head = f"# HELP {metric.name} {escaped}\n# TYPE {metric.name} {metric.kind}\n"
        self._lines: dict[tuple[str, ...], SampleLine] = {}
        if not metric.labels:
            self()

    def __call__(self, *labels: str) -> SampleLine:
        line = self._lines.get(labels)
        return line if line is not None else self._bind(labels)

    def _bind(self, labels: tuple[str, ...]) -> SampleLine:
        assert len(labels) == len(self._labels)
        labels = self._bounded(labels, len(self._lines))
        return self._lines.setdefault(labels, SampleLine(self._stem(labels)))

    def _stem(self, labels: tuple[str, ...]) -> str:
        pairs = (f'{name}="{value.translate(_ESCAPES)}"' for name, value in zip(self._labels, labels, strict=True))
        return f"{self._name}{{{','.join(pairs)}}}" if labels else self._name

    def text(self) -> str:
        return self._head + "".join([line.text() for line in list(self._lines.values())])
