"""Every metric on one page: `python docs/metrics.py` writes reference/metrics.md from observe/metric_table.py."""

from __future__ import annotations

from pathlib import Path

from keystrand.observe.metric_table import reference_page

PAGE = Path(__file__).parent / "reference" / "metrics.md"

if __name__ == "__main__":
    PAGE.write_text(reference_page(), encoding="utf-8")
