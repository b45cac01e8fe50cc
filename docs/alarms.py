"""Every alarm on one page: `python docs/alarms.py` writes reference/alarms.md from observe/alarm_table.py."""

from __future__ import annotations

from pathlib import Path

from keystrand.observe.alarm_table import reference_page

PAGE = Path(__file__).parent / "reference" / "alarms.md"

if __name__ == "__main__":
    PAGE.write_text(reference_page(), encoding="utf-8")
