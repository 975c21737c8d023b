"""The command line: what it loads, what it prints, how it fails."""

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from boards import PROJECT_ROOT, BoardError, all_boards
from codegen.graph import ModelError
from codegen.planner import PlanError
from codegen.protocol import ProtocolError
from codegen.tiers import TierError
from coordinator import errors
from coordinator.cli import main
from coordinator.cli.options import spread
from coordinator.cli.plan import seconds
from coordinator.cli.run import run_folder, set_aside
from coordinator.link.errors import LinkLost, LinkTimeout, NodeError, PortError

HEAVY = ("tensorflow", "keras", "numpy", "pydantic", "rich", "serial", "jinja2", "asyncio")
TYPERS_OWN = ("pydantic", "asyncio")  # what typer itself loads to describe a command's options


def _run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


@pytest.mark.parametrize(
    ("arguments", "heavy"),
    [(["--help"], HEAVY), *((([name, "--help"], set(HEAVY) - set(TYPERS_OWN))) for name in ("plan", "serve", "demo"))],
)
def test_help_loads_nothing_heavy(arguments: list[str], heavy: tuple[str, ...]) -> None:
    script = (
        "import sys; from coordinator.cli import main\n"
        f"try: main({arguments!r})\n"
        f"except SystemExit: print([name for name in {sorted(heavy)!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "coordinator", "-h"], cwd=PROJECT_ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: coordinator ")
    for command in (
        "demo",
        "serve",
        "emulate",
        "flash",
        "ports",
        "plan",
        "boards",
        "generate",
        "report",
        "data",
        "keys",
        "log",
    ):
        assert re.search(rf"^  {command} ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("--ports a b c", "--ports a --ports b --ports c"),
        ("--ports a,b --ports c", "--ports a --ports b --ports c"),
        ("--ports a b --resume --run x", "--ports a --ports b --resume --run x"),
        ("--resume --ports a -f F --ports=b,c d", "--resume --ports a -f F --ports b --ports c --ports d"),
        ("--ports socket://10.0.0.7:9000 COM3", "--ports socket://10.0.0.7:9000 --ports COM3"),
        ("--ports", "--ports"),
        ("--resume", "--resume"),
    ],
)
def test_ports_take_several_words(given: str, taken: str) -> None:
    assert " ".join(spread("--ports", given.split())) == taken


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["plan", "--nope"], 2, "No such option"),
        (["flash", "--all", "uno"], 2, "expected neither a NAME nor --port"),
        (["flash", "due"], 2, "due: no node of"),
        (["flash", "nrf52_dk"], 2, "3 nodes have this board; expected one of nrf52_dk-1, nrf52_dk-2, nrf52_dk-3"),
        (["serve"], 2, "--ports says where the nodes are"),
        (["serve", "--ports"], 2, "requires an argument"),
        (["serve", "--ports", "auto", "x"], 2, "expected it alone"),
        (["demo", "--run", "../up"], 2, "--run ../up: expected at most 63 letters"),
        (["plan", "-f", "absent.toml"], 3, "absent.toml: No such file"),
        (["generate", "-b", "one", "-o", "OUT"], 12, 'no board "one"'),
        (["data", "fetch", "cifar"], 6, "expected mnist"),
        (["report", "OUT"], 10, "no journal.jsonl"),
    ],
)
def test_a_user_error_is_one_sentence_and_a_code(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, out, err = _run([str(tmp_path) if word == "OUT" else word for word in arguments], capsys)
    assert (found, out) == (code, "")
    assert said in err
    assert "Traceback" not in err


class _OtherError(ValueError):
    """Nobody's."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.FederationError(""), 3),
        (ModelError(""), 4),
        (TierError(""), 4),
        (PlanError(""), 5),
        (errors.DataError(""), 6),
        (PortError(""), 7),
        (errors.FirmwareMismatch(""), 8),
        (errors.RunFailed(""), 9),
        (errors.RunFileError(""), 10),
        (OSError(28, "No space left on device", "x"), 10),
        (errors.ToolchainError(""), 11),
        (BoardError(""), 12),
        (ProtocolError(""), 13),
        (LinkLost(""), 13),
        (LinkTimeout(""), 13),
        (NodeError(1, 2), 13),
        (_OtherError(""), None),
        (ZeroDivisionError(""), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_error_has_its_code(error: BaseException, code: int | None) -> None:
    assert errors.exit_code(error) == code


def test_every_code_is_documented_and_below_126() -> None:
    codes = {error.exit_code for error in _descendants(errors.TierfedError)} | set(errors.FOREIGN.values())
    codes |= {0, errors.INTERNAL, errors.INTERRUPTED}
    page = (PROJECT_ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes
    assert max(codes) < 126


def _descendants(kind: type[errors.TierfedError]) -> set[type[errors.TierfedError]]:
    return {kind}.union(*(_descendants(child) for child in kind.__subclasses__()))


def test_an_os_error_names_its_file() -> None:
    full = errors.sentence(OSError(28, "No space left on device", "runs/x"))
    assert full == "runs/x: No space left on device; make room, then do the same again (a run goes on with --resume)"


def test_ctrl_c_ends_with_its_own_code(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "coordinator", "serve", "--ports", _silent_pty(), "--run", "x"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(PROJECT_ROOT)},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a suite in the background ignores it
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not (tmp_path / "runs" / "x" / "journal.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == errors.INTERRUPTED, err
    assert err == "coordinator: interrupted\n"


def _silent_pty() -> str:
    """A port on which nobody answers: a pty, kept open as long as the process lives."""
    _, follower = os.openpty()
    return os.ttyname(follower)


def test_boards_as_json_and_as_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["boards", "--json"], capsys)
    assert code == 0
    assert [board["id"] for board in json.loads(out)] == [board.id for board in all_boards()]
    _, table, _ = _run(["boards"], capsys)
    assert len(table.splitlines()) == 2 + len(all_boards())
    assert not any(line.endswith(" ") for line in table.splitlines())


def test_what_a_terminal_cannot_show_is_no_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "coordinator", "boards"],
        cwd=PROJECT_ROOT, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "Arduino Uno" in done.stdout


def test_json_is_there_while_the_command_goes_on() -> None:
    script = "import time; from coordinator.cli.options import print_json; print_json([1]); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], cwd=PROJECT_ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 20)[0]
        process.kill()


def test_what_fits_no_tier_is_refused_before_it_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example = PROJECT_ROOT / "examples" / "mnist"
    path = tmp_path / "uno.toml"
    path.write_text(
        f'name = "uno"\n[model]\npath = "{example / "model.py"}"\n[data]\npath = "{example / "mnist-10k.npz"}"\n'
        '[[nodes]]\nboard = "uno"\n'
    )
    for command in ("demo", "emulate"):
        code, out, err = _run([command, "-f", str(path)], capsys)
        assert (code, out) == (5, "")
        assert "bytes of RAM more than uno has" in err
        assert "building" not in err


def test_plan_chooses_the_tiers_of_the_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["plan", "--json"], capsys)
    rows = json.loads(out)
    assert code == 0
    assert len(rows) == 5 * len(all_boards())
    chosen = {row["board"]: row["tier"] for row in rows if row["chosen"]}
    assert {board: chosen.get(board) for board in EXPECTED} == EXPECTED
    for row in rows:
        assert row["fits"] == (row["missing_bytes"] == 0)
        assert row["fits"] or row["reason"]


def test_a_round_of_the_plan_has_the_epochs_of_the_federation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    example = PROJECT_ROOT / "examples" / "mnist"
    text = (example / "federation.toml").read_text(encoding="utf-8").replace("model.py", str(example / "model.py"))
    rows = {}
    for epochs in (1, 4):
        path = tmp_path / f"{epochs}.toml"
        path.write_text(re.sub(r"^epochs = \d+", f"epochs = {epochs}", text, flags=re.MULTILINE), encoding="utf-8")
        _, out, _ = _run(["plan", "--json", "-b", "nrf52_dk", "-f", str(path)], capsys)
        rows[epochs] = next(row for row in json.loads(out) if row["chosen"])
    more = rows[4]["round_seconds"] - rows[1]["round_seconds"]
    assert more == pytest.approx(3 * 900 * rows[1]["step_seconds"])


EXPECTED = {
    "esp32dev": "expanded",
    "nrf52840_dk": "expanded",
    "nrf52_dk": "base",
    "uno_r4_minima": "compact",
    "megaatmega2560": "compact",
    "uno": "nano",
}


FRUGAL = """
name = "frugal"
[model]
path = "{folder}/model.py"
trainable = "auto"
[tiers]
expanded = 1.0
[data]
path = "{folder}/mnist-10k.npz"
[[nodes]]
board = "nrf52_dk"
[[nodes]]
board = "esp32dev"
"""
AUTO = r"auto: conv1, conv2 and conv3 are frozen, because nrf52_dk would be short by [\d,]+ bytes of RAM with conv3 "


def test_plan_says_what_auto_freezes_and_for_whom(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "federation.toml"
    path.write_text(FRUGAL.format(folder=PROJECT_ROOT / "examples" / "mnist"), encoding="utf-8")
    _, out, _ = _run(["plan", "-f", str(path)], capsys)
    assert re.search(f"^{AUTO}trained$", out, re.MULTILINE)
    assert "name a trained .keras file as [model] path" in out
    _, out, _ = _run(["plan", "-f", str(path), "-b", "esp32dev"], capsys)
    assert "auto: no layer is frozen, because every board holds a tier of the whole model" in out
    _, out, _ = _run(["plan", "-f", str(path), "--json"], capsys)
    assert {tuple(row["frozen"]) for row in json.loads(out)} == {("conv1", "conv2", "conv3")}
    code, _, err = _run(["plan", "-f", str(path), "-b", "uno"], capsys)
    assert (code, "though every layer but logits is frozen" in err) == (5, True)
    code, _, err = _run(["generate", "-b", "uno", "-f", str(path), "-o", str(tmp_path)], capsys)
    assert (code, "bytes" in err) == (5, True)
    _run(["generate", "-b", "esp32dev", "-f", str(path), "-o", str(tmp_path)], capsys)
    assert "static const float model_kernel_conv3" in (tmp_path / "model.h").read_text(encoding="utf-8")


def test_generate_tells_what_it_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(["generate", "-b", "megaatmega2560", "-o", str(tmp_path)], capsys)
    made = json.loads(out)
    assert (code, made["tier"]) == (0, "compact")
    assert f"0x{made['model_hash']}" in (tmp_path / "model.h").read_text(encoding="utf-8").lower()
    assert (tmp_path / "protocol.h").is_file()


@pytest.mark.parametrize(
    ("value", "text"), [(4.1e-5, "41 µs"), (0.0124, "12.4 ms"), (24.07, "24.1 s"), (450, "7.5 min"), (25902, "7.2 h")]
)
def test_durations(value: float, text: str) -> None:
    assert seconds(value) == text


def test_an_earlier_demo_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = run_folder("demo")
    assert set_aside(folder) is None
    (folder / "shards").mkdir(parents=True)
    (folder / "journal.jsonl").write_text("{}\n")
    aside = set_aside(folder)
    assert aside is not None
    assert not folder.exists()
    assert (aside / "journal.jsonl").read_text() == "{}\n"
    assert not (aside / "shards").exists()
