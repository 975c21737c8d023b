"""The README's figures are those that its commands print."""

import re

import pytest

from benchmarks.readme import END, fill, mark, stored
from boards import PROJECT_ROOT
from coordinator.cli.plan import plan_rows, seconds
from coordinator.federation import load

README = (PROJECT_ROOT / "README.md").read_text(encoding="utf-8")
ROWS, _ = plan_rows(load(PROJECT_ROOT / "examples/mnist/federation.toml"))
CHOSEN = [row for row in ROWS if row["chosen"]]


@pytest.mark.parametrize("row", CHOSEN, ids=lambda row: row["board"])
def test_table_of_boards_and_tiers_is_the_plan(row: dict[str, object]) -> None:
    cells = [row["board"], row["tier"], row["ram"], row["ram_limit"], row["flash"], row["flash_limit"], row["batch"]]
    times = [seconds(row["step_seconds"]), seconds(row["round_seconds"])]  # type: ignore[arg-type]
    texts = [f"{cell:,}" if isinstance(cell, int) else cell for cell in cells] + times
    assert f"| {' | '.join(map(str, texts))} |" in README


def test_table_of_boards_and_tiers_has_no_other_rows() -> None:
    table = README.split("| board | tier |")[1].split("\n\n")[0]
    assert len(table.splitlines()) - 2 == len(CHOSEN)


def test_tables_of_benchmarks_are_the_stored_measurements() -> None:
    assert fill(README, stored("engine"), stored("boards")) == README
    engine, images = stored("engine"), stored("boards")
    engine["m4f"]["784-32-10"]["instructions"] += 1
    images["uno"]["ram_actual"] += 1
    assert fill(README, engine, stored("boards")) != README != fill(README, stored("engine"), images)


@pytest.mark.parametrize("page", ["", mark("engine"), f"{END}\n{mark('engine')}", f"{mark('engine')}\n{END}"])
def test_a_page_without_a_place_for_the_tables_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="no place for the tables"):
        fill(page, stored("engine"), stored("boards"))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_links_lead_somewhere(path: str) -> None:
    assert (PROJECT_ROOT / path).exists()
