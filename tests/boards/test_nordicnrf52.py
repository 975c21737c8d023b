"""Our platform for Nordic's chips: what it cannot do, it says in one sentence."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from boards import PROJECT_ROOT

REGISTRY = "needs the framework arduino, which only PlatformIO's registry has; connect, delete platformio.local.ini"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where headers are made once for all of them; `bin` holds a compiler, and nothing that writes to a chip."""
    folder, compiler = tmp_path_factory.mktemp("workspace"), shutil.which("arm-none-eabi-gcc")
    assert compiler, "arm-none-eabi-gcc is missing: apt-get install gcc-arm-none-eabi"
    (folder / "bin").mkdir()
    (folder / "bin" / "arm-none-eabi-gcc").symlink_to(compiler)
    return folder


@pytest.mark.parametrize(
    ("board", "protocol", "path", "expected"),
    [
        ("nrf52_dk", "jlink", "bin", f"nrf52_dk {REGISTRY}"),
        ("nrf52_dk_bare", "jlink", "bin", "JLinkExe or openocd is missing, which uploads by jlink; install it: `apt"),
        ("nrf52_dk_bare", "nrfjprog", "bin", "nrfjprog is missing, which uploads by nrfjprog; install it: Nordic"),
        ("nrf52_dk_bare", "stlink", "bin", "upload_protocol is 'stlink'; without PlatformIO's registry expected one"),
        ("nrf52_dk_bare", "jlink", "empty", "arm-none-eabi-gcc is missing; install it with `apt-get install gcc-arm"),
    ],
)
def test_what_is_missing_is_named(
    filled: Path, workspace: Path, board: str, protocol: str, path: str, expected: str
) -> None:
    settings = (PROJECT_ROOT / "platformio.ini").read_text()
    project = workspace / "platformio.ini"
    project.write_text(settings.replace("[env]\n", f"[env]\nupload_protocol = {protocol}\n"))
    env = os.environ | {
        "PATH": str(workspace / path),
        "PLATFORMIO_CORE_DIR": str(filled / ".platformio"),
        "PLATFORMIO_WORKSPACE_DIR": str(workspace),
    }
    command = [sys.executable, "-m", "platformio", "run", "-d", str(PROJECT_ROOT), "-c", str(project)]
    command += ["-e", board, "-t", "upload"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode != 0
    errors = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("Error: ")]
    assert [error for error in errors if expected not in error] == []
    assert len(errors) == 1
    assert "Traceback" not in done.stdout + done.stderr
