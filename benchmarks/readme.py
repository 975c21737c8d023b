"""The README's tables of the engine, from the last stored measurement.

python -m benchmarks.engine --json > docs/engine.json && python -m benchmarks.readme
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

from benchmarks.engine import (
    CHIP_COLUMNS,
    CONDITIONS,
    HOST_COLUMNS,
    HOST_CONDITIONS,
    Results,
    chip_rows,
    host_rows,
)
from boards import PROJECT_ROOT

README, STORED = PROJECT_ROOT / "README.md", PROJECT_ROOT / "docs" / "engine.json"
BEGIN, END = "<!-- python -m benchmarks.readme -->", "<!-- end -->"


def main() -> None:
    """Fill the README from the stored JSON."""
    README.write_text(fill(README.read_text(encoding="utf-8"), stored()), encoding="utf-8")


def stored(path: Path = STORED) -> Results:
    """Return what `python -m benchmarks.engine --json` printed when it was last kept."""
    results: Results = json.loads(path.read_text(encoding="utf-8"))
    return results


def fill(page: str, results: Results) -> str:
    """Return the page with the tables of these results between the marks. Raises ValueError if it has no marks."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: no place for the tables; expected the lines {BEGIN} and {END}")
    return f"{head}{begin}\n\n{tables(results)}\n\n{end}{tail}"


def tables(results: Results) -> str:
    """Return both tables in Markdown, each with the conditions that it was measured under."""
    chips = _table(CHIP_COLUMNS, 3, chip_rows(results))
    host = _table(HOST_COLUMNS, 1, host_rows(results))
    return "\n\n".join([chips, textwrap.fill(CONDITIONS, 120), host, textwrap.fill(HOST_CONDITIONS, 120)])


def _table(columns: Sequence[str], words: int, rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


if __name__ == "__main__":
    main()
