"""The README's tables of the engine and of the boards, from the last stored measurements.

python -m benchmarks.engine --json > docs/engine.json
python -m benchmarks.boards --json > docs/boards.json
python -m benchmarks.readme
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from typing import Any

from benchmarks import boards
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

README = PROJECT_ROOT / "README.md"
END = "<!-- end -->"


def main() -> None:
    """Fill the README from the stored JSON."""
    page = README.read_text(encoding="utf-8")
    README.write_text(fill(page, stored("engine"), stored("boards")), encoding="utf-8")


def stored(name: str) -> Any:
    """Return what `python -m benchmarks.NAME --json` printed when it was last kept."""
    return json.loads((PROJECT_ROOT / "docs" / f"{name}.json").read_text(encoding="utf-8"))


def fill(page: str, engine: Results, images: dict[str, dict[str, Any]]) -> str:
    """Return the page with the tables of these results between its marks. Raises ValueError if one is missing."""
    return _put(_put(page, "engine", engine_tables(engine)), "boards", boards_table(images))


def mark(name: str) -> str:
    """Return the line behind which the tables of a benchmark stand, up to END."""
    return f"<!-- python -m benchmarks.{name} -->"


def _put(page: str, name: str, text: str) -> str:
    head, begin, rest = page.partition(mark(name))
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md: no place for the tables; expected the lines {mark(name)} and {END}")
    return f"{head}{begin}\n\n{text}\n\n{end}{tail}"


def boards_table(images: dict[str, dict[str, Any]]) -> str:
    """Return the table of boards in Markdown, with the conditions that it was measured under."""
    rows = boards.rows({name: boards.Figures(**figures) for name, figures in images.items()})
    return "\n\n".join([_table(boards.COLUMNS, 2, rows), textwrap.fill(boards.CONDITIONS, 120)])


def engine_tables(results: Results) -> str:
    """Return both tables in Markdown, each with the conditions that it was measured under."""
    chips = _table(CHIP_COLUMNS, 3, chip_rows(results))
    host = _table(HOST_COLUMNS, 1, host_rows(results))
    return "\n\n".join([chips, textwrap.fill(CONDITIONS, 120), host, textwrap.fill(HOST_CONDITIONS, 120)])


def _table(columns: Sequence[str], words: int, rows: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * words + ["---:"] * (len(columns) - words)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, rule, *rows))


if __name__ == "__main__":
    main()
