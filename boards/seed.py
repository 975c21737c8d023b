"""PlatformIO without its registry: fill a core directory of the project's own, once, from PyPI.

`python -m boards.seed` leaves PlatformIO alone where its registry answers, or where it already has what the native
twins need. Elsewhere it puts SCons and minimal platforms of our own (boards/platforms) into `.platformio/`, and points
PlatformIO there by `platformio.local.ini`, which platformio.ini includes. `PLATFORMIO_CORE_DIR` in the environment wins
over both.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from boards import PROJECT_ROOT

PLATFORMS = Path(__file__).resolve().parent / "platforms"
PROBE_SECONDS = 3.0
LOCAL_INI = """\
; Written by `python -m boards.seed` because PlatformIO's registry did not answer. Delete it to go back to the registry.
[platformio]
core_dir = .platformio
"""
SCONS_MAIN = '''\
"""Starts the SCons beside this file, for PlatformIO."""

from SCons.Script import main

main()
'''


class SeedError(Exception):
    """PlatformIO cannot be made ready; one sentence for the user."""


@dataclass(frozen=True)
class _Stamp:
    """What a core directory was filled from; another content means that it must be filled again."""

    platformio: str
    platforms: str


def seed(root: Path = PROJECT_ROOT, hosts: Sequence[str] | None = None) -> bool:
    """Make `pio run -e native_…` work in `root`; True if a core directory had to be filled.

    `hosts` are the registry's, PlatformIO's own by default. SeedError if neither the registry nor PyPI helps.
    """
    own, stamp = root / ".platformio", _stamp()
    chosen = os.environ.get("PLATFORMIO_CORE_DIR")
    if not chosen and (root / "platformio.local.ini").is_file() and _read_stamp(own) == stamp:
        return False
    if _has_what_it_needs(Path(chosen) if chosen else Path.home() / ".platformio") or registry_answers(hosts):
        _forget(root)
        return False
    if chosen:
        raise SeedError(
            f"PLATFORMIO_CORE_DIR is {chosen}, where SCons and the native platform are not installed, and PlatformIO's "
            "registry does not answer; unset it and run `make setup` again"
        )
    print("PlatformIO's registry does not answer: filling .platformio/ from PyPI instead", file=sys.stderr)
    _fill(own, stamp)
    _write(root / "platformio.local.ini", LOCAL_INI)
    return True


def registry_answers(hosts: Sequence[str] | None = None, seconds: float = PROBE_SECONDS) -> bool:
    """Whether a package could be had from any mirror of the registry; takes at most `seconds`."""
    from platformio import __registry_mirror_hosts__ as mirrors

    answer = threading.Event()
    probes = [threading.Thread(target=_probe, args=(host, seconds, answer), daemon=True) for host in hosts or mirrors]
    for probe in probes:
        probe.start()
    deadline = time.monotonic() + seconds  # a name server may keep a probe waiting far longer than its own timeout
    while not answer.is_set() and time.monotonic() < deadline and any(probe.is_alive() for probe in probes):
        answer.wait(0.02)
    return answer.is_set()


def _probe(host: str, seconds: float, answer: threading.Event) -> None:
    import requests

    try:
        listing = requests.get(f"https://api.{host}/v3/packages/platformio/platform/native", timeout=seconds)
        listing.raise_for_status()
        listing.json()
        requests.head(f"https://dl.{host}/", timeout=seconds)
    except (requests.RequestException, ValueError):
        return
    answer.set()


def scons_versions() -> tuple[str, str]:
    """The SCons that the installed PlatformIO asks for, as its package and as PyPI's release: 4.41101.0, 4.11.1."""
    from platformio.dependencies import get_core_dependencies

    requirement = get_core_dependencies()["tool-scons"]
    match = re.fullmatch(r"[~^=]*(\d+\.(\d+)(\d\d)(\d\d)\.\d+)", requirement)
    if not match:
        raise SeedError(
            f"PlatformIO {_platformio_version()} asks for SCons {requirement}; expected the form ~4.41101.0"
        )
    return match[1], ".".join(str(int(part)) for part in match.groups()[1:])


def _has_what_it_needs(core: Path) -> bool:
    version = scons_versions()[0]
    scons = [_read_json(path).get("version") for path in core.glob("packages/tool-scons*/package.json")]
    return version in scons and any(core.glob("platforms/native*/platform.json"))


def _fill(core: Path, stamp: _Stamp) -> None:
    """Put SCons, the platform and settings into place, the stamp last: a torn directory has none and is done again."""
    from platformio.package.lockfile import LockFile

    core.mkdir(exist_ok=True)
    with LockFile(str(core)):
        if _read_stamp(core) == stamp:
            return  # another process was faster
        for left_over in core.glob(".seeding-*"):
            shutil.rmtree(left_over)
        work = Path(tempfile.mkdtemp(prefix=".seeding-", dir=core))
        try:
            _make_scons(work / "tool-scons")
            _move(work / "tool-scons", core / "packages" / "tool-scons", work)
            for source in sorted(path.parent for path in PLATFORMS.glob("*/platform.json")):
                shutil.copytree(source, work / source.name, ignore=shutil.ignore_patterns("__pycache__"))
                _write_meta(work / source.name, "platform", str(_read_json(source / "platform.json")["version"]))
                _move(work / source.name, core / "platforms" / source.name, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        _write(core / "appstate.json", json.dumps(_quiet_settings(_read_json(core / "appstate.json"))))
        _write(core / "seed.json", json.dumps(asdict(stamp)))


def _make_scons(target: Path) -> None:
    package_version, release = scons_versions()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "--target", str(target), f"scons=={release}"], capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise SeedError(f"scons {release} cannot be had from PyPI ({reason}); connect and run `make setup` again")
    _write(target / "scons.py", SCONS_MAIN)
    manifest = {"name": "tool-scons", "version": package_version, "description": "SCons from PyPI", "system": "*"}
    _write(target / "package.json", json.dumps(manifest))
    _write_meta(target, "tool", package_version)


def _write_meta(package: Path, kind: str, version: str) -> None:
    """Say where the package is from, in PlatformIO's words: without an owner it would look for another."""
    spec = {"owner": "platformio", "id": None, "name": package.name, "requirements": None, "uri": None}
    _write(package / ".piopm", json.dumps({"type": kind, "name": package.name, "version": version, "spec": spec}))


def _quiet_settings(state: dict[str, object]) -> dict[str, object]:
    """PlatformIO's own state, without what would go to the network at every run: upgrade checks, telemetry."""
    old = state.get("settings")
    settings = {**old} if isinstance(old, dict) else {}
    settings |= {"enable_telemetry": False, "check_platformio_interval": 36500, "check_prune_system_threshold": 0}
    return {**state, "last_version": _platformio_version(), "settings": settings}


def _stamp() -> _Stamp:
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(path for path in PLATFORMS.rglob("*") if path.suffix in (".py", ".json")):
        digest.update(path.read_bytes())
    return _Stamp(_platformio_version(), digest.hexdigest())


def _read_stamp(core: Path) -> _Stamp | None:
    found = _read_json(core / "seed.json")
    return _Stamp(str(found.get("platformio")), str(found.get("platforms"))) if found else None


def _platformio_version() -> str:
    return importlib.metadata.version("platformio")


def _forget(root: Path) -> None:
    """Give PlatformIO back its own core directory, if it was us who took it away."""
    local = root / "platformio.local.ini"
    if local.is_file() and local.read_text(encoding="utf-8") == LOCAL_INI:
        local.unlink()


def _move(source: Path, target: Path, work: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        target.rename(work / f"old-{target.name}")
    source.rename(target)


def _read_json(path: Path) -> dict[str, object]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _write(path: Path, text: str) -> None:
    """Write a whole file or none."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def main() -> int:
    """Entry point of `python -m boards.seed`."""
    try:
        seed()
    except SeedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
