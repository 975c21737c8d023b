"""`pio run` on native twins, cut off from PlatformIO's registry, in a copy of the project whose path has a space.

PlatformIO itself runs in a Python that has none of our packages, as an IDE's does.
"""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import boards
from boards import seed
from codegen import prebuild

ENV = "native_megaatmega2560"
PARTS = ("boards", "codegen", "coordinator", "firmware", "examples", "platformio.ini")


def _with_dependencies(name: str, seen: set[str]) -> Iterator[importlib.metadata.Distribution]:
    name = re.sub(r"[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return  # for another system
    yield found
    for requirement in found.requires or []:
        if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement)):
            yield from _with_dependencies(match[0], seen)


@pytest.fixture(scope="module")
def ide_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with PlatformIO and what it needs, and nothing else."""
    home = tmp_path_factory.mktemp("ide")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    packages = next(home.glob("lib/python*/site-packages"))
    for distribution in _with_dependencies("platformio", set()):
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            (packages / top).symlink_to(str(distribution.locate_file(top)))
    return home / "bin" / "python"


class Project:
    """The copy, and how to build in it."""

    def __init__(self, root: Path, python: Path) -> None:
        self.root, self.python = root, python
        self.generated = root / ".pio/build" / ENV / "generated"

    def pio(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        kept = {
            key: value for key, value in os.environ.items() if not key.startswith(("PLATFORMIO_", "PYTHON", "TIERFED_"))
        }
        nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
        return subprocess.run(
            [str(self.python), "-m", "platformio", "run", "-e", ENV, *arguments],
            cwd=self.root, env={**kept, **nowhere, "HOME": str(self.root / "home"), **variables},
            capture_output=True, text=True, timeout=180,
        )  # fmt: skip

    def headers(self) -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in self.generated.glob("*.h")}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, ide_python: Path) -> Project:
    root = tmp_path_factory.mktemp("pio") / "a project"
    root.mkdir()
    for part in PARTS:
        source, target = boards.PROJECT_ROOT / part, root / part
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(root / "home"))
        patch.delenv("PLATFORMIO_CORE_DIR", raising=False)
        seed.seed(root, ("registry.invalid",))
    built = Project(root, ide_python)
    with _environment(root):
        done = built.pio("-v")
        assert done.returncode == 0, done.stdout + done.stderr
        (root / "build.log").write_text(done.stdout)
    return built


class _environment:  # noqa: N801  (reads as a phrase where it is used)
    """While it lasts, the copy's `.venv` is the environment that runs the tests."""

    def __init__(self, root: Path) -> None:
        self.link = root / ".venv"

    def __enter__(self) -> None:
        self.link.symlink_to(sys.prefix)

    def __exit__(self, *_: object) -> None:
        self.link.unlink()


def test_a_twin_is_built_with_our_flags_and_sizes(project: Project) -> None:
    log = (project.root / "build.log").read_text()
    board = boards.load("megaatmega2560")
    compile_line = next(line for line in log.splitlines() if line.endswith("firmware/node/node.c"))
    for flag in (*prebuild.C_FLAGS, *prebuild.CC_FLAGS):
        assert f" {flag} " in compile_line
    assert f"-DLINK_MTU={board.training.mtu} -DLINK_WINDOW={board.training.window}" in compile_line
    assert f"-DFIRMWARE_HASH=0x{prebuild.firmware_hash(project.root):08x}UL" in compile_line
    assert set(project.headers()) == {"model.h", "protocol.h"}
    assert os.access(project.generated.parent / "program", os.X_OK)


def test_unchanged_inputs_need_no_environment_and_regenerate_nothing(project: Project) -> None:
    before = project.headers()
    done = project.pio()  # there is no .venv now: nothing could be generated, and no TensorFlow imported
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Generated" not in done.stdout
    assert "up to date" in done.stdout
    assert project.headers() == before


@pytest.mark.parametrize(
    "changed",
    ["examples/mnist/model.py", "examples/mnist/federation.toml", "boards/megaatmega2560.json", "codegen/header.py"],
)
def test_a_changed_input_needs_the_environment_and_names_the_command(project: Project, changed: str) -> None:
    path = project.root / changed
    original = path.read_text()
    try:
        path.write_text(original + "\n")
        done = project.pio()
    finally:
        path.write_text(original)
    assert done.returncode != 0
    assert re.search(r"Error: .*a project has no Python environment .*; run `make setup` there\n", done.stderr)


def test_another_federation_is_chosen_by_the_environment(project: Project) -> None:
    done = project.pio(TIERFED_FEDERATION="missing.toml")
    assert done.returncode != 0
    assert re.search(r"Error: no federation file .*a project/missing.toml; give one by TIERFED_FEDERATION", done.stderr)


def test_a_warning_is_an_error(project: Project) -> None:
    source = project.root / "firmware/node/node.c"
    original = source.read_text()
    try:
        source.write_text(
            original + "signed char careless(int wide);\nsigned char careless(int wide) { return wide; }\n"
        )
        done = project.pio()
    finally:
        source.write_text(original)
    assert done.returncode != 0
    assert "[-Werror=conversion]" in done.stderr


def test_a_board_that_nothing_fits_says_so(project: Project) -> None:
    example = project.root / "examples/mnist/federation.toml"
    wide = example.with_name("wide.toml")
    wide.write_text(re.sub(r"^nano = .*\n", "", example.read_text(), flags=re.MULTILINE))
    with _environment(project.root):
        done = project.pio("-e", "native_uno", TIERFED_FEDERATION=str(wide))
    assert done.returncode != 0
    assert re.search(r"Error: .*needs [\d,]+ bytes of RAM more than uno has", done.stderr)


def test_cleaning_needs_nothing(project: Project, tmp_path: Path) -> None:
    done = project.pio("-t", "clean", PLATFORMIO_WORKSPACE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_firmwares_hash_is_of_its_sources(tmp_path: Path) -> None:
    source = tmp_path / "firmware/node/node.c"
    source.parent.mkdir(parents=True)
    hashes = []
    for content in (b"int x;\n", b"int x;\r\n", b"int y;\n"):
        source.write_bytes(content)
        hashes.append(prebuild.firmware_hash(tmp_path))
    source.rename(source.with_name("other.c"))
    hashes.append(prebuild.firmware_hash(tmp_path))
    (tmp_path / "firmware/NOTES.md").write_text("not compiled")
    assert prebuild.firmware_hash(tmp_path) == hashes[-1]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
