"""Seeding PlatformIO, with its registry really out of reach: its hosts do not exist, and PyPI does."""

import os
import time
from pathlib import Path

import pytest

from boards import seed
from boards.seed import SeedError
from tests.boards.conftest import NOWHERE


@pytest.fixture(autouse=True)
def no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who never ran PlatformIO; pip keeps the real user's configuration and cache."""
    for variable, folder in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        monkeypatch.setenv(variable, os.environ.get(variable) or str(Path.home() / folder))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PLATFORMIO_CORE_DIR", raising=False)


def _packages(root: Path) -> set[str]:
    return {path.parent.name for path in (root / ".platformio").glob("*/*/.piopm")}


def test_it_fills_a_directory_of_the_projects_own(filled: Path) -> None:
    assert _packages(filled) == {"tool-scons", "atmelavr", "native", "nordicnrf52"}
    assert "core_dir = .platformio" in (filled / "platformio.local.ini").read_text()
    assert not list((filled / ".platformio").glob(".seeding-*"))


def test_it_is_the_scons_that_platformio_asks_for(filled: Path) -> None:
    version = (filled / ".platformio/packages/tool-scons/SCons/__init__.py").read_text()
    assert f'__version__="{seed.scons_versions()[1]}"' in version.replace(" ", "")


def test_it_is_done_once(filled: Path) -> None:
    started = time.process_time()
    assert not seed.seed(filled, NOWHERE)
    assert time.process_time() - started < 0.3


def test_a_half_filled_directory_is_filled_again(tmp_path: Path) -> None:
    core = tmp_path / ".platformio"
    (core / "packages/tool-scons/SCons").mkdir(parents=True)
    (core / ".seeding-killed/tool-scons").mkdir(parents=True)
    (core / "appstate.json").write_text("{torn")
    assert seed.seed(tmp_path, NOWHERE)
    assert _packages(tmp_path) == {"tool-scons", "atmelavr", "native", "nordicnrf52"}
    assert (core / "packages/tool-scons/scons.py").is_file()
    assert not list(core.glob(".seeding-*"))


def test_without_pypi_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(SeedError, match=r"scons [\d.]+ cannot be had from PyPI \(.*\); connect and run `make setup`"):
        seed.seed(tmp_path, NOWHERE)
    assert not _packages(tmp_path)
    assert not list((tmp_path / ".platformio").glob(".seeding-*"))
    assert not (tmp_path / "platformio.local.ini").exists()


def test_a_core_directory_of_the_users_choice_wins(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(filled / ".platformio"))
    assert not seed.seed(project, NOWHERE)
    monkeypatch.setenv("PLATFORMIO_CORE_DIR", str(tmp_path / "empty"))
    with pytest.raises(SeedError, match=r"PLATFORMIO_CORE_DIR is .*empty.* unset it and run `make setup`"):
        seed.seed(project, NOWHERE)
    assert not list(project.iterdir())


@pytest.mark.parametrize("content", [seed.LOCAL_INI, "[platformio]\n; mine\n"])
def test_it_steps_back_where_platformio_has_everything(filled: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.platformio").symlink_to(filled / ".platformio")
    local = tmp_path / "platformio.local.ini"
    local.write_text(content)
    assert not seed.seed(tmp_path, NOWHERE)
    assert local.exists() == (content != seed.LOCAL_INI)
    assert not (tmp_path / ".platformio").exists()


def test_an_unreachable_registry_is_known_in_time() -> None:
    started = time.perf_counter()
    assert not seed.registry_answers(("registry.invalid", "192.0.2.1"), seconds=1.0)  # RFC 5737: never answers
    assert time.perf_counter() - started < 3.0
