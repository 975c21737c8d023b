"""Keys of nodes: made, kept from others, read, and told in words when they are not as they should be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from coordinator import federation
from coordinator.cli import main
from coordinator.errors import KeyFileError
from coordinator.federation import Federation
from coordinator.keys import fingerprint, key_file, keyed_nodes, load_key, make_keys
from coordinator.roster import keyring, named_uid

NODES = ("uno-1", "uno-2", "esp32dev-1")
FILE = """
name = "f"
[model]
path = "model.py"
[data]
path = "data.npz"
[[nodes]]
board = "uno"
count = 2
[[nodes]]
board = "esp32dev"
"""
KEY = bytes(range(32))


@pytest.fixture
def described(tmp_path: Path) -> Federation:
    (tmp_path / "f.toml").write_text(FILE)
    return federation.load(tmp_path / "f.toml")


def coordinator(described: Federation, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--federation", str(described.path)])
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def contents(described: Federation) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in keyed_nodes(described).items()}


def test_nobody_has_a_key_until_one_is_made(described: Federation) -> None:
    assert keyed_nodes(described) == {} == keyring(described)
    assert key_file(described, "uno-1") is None


def test_keys_are_for_their_owner_alone_and_not_for_git(described: Federation) -> None:
    earlier = os.umask(0)
    try:
        made = make_keys(described, NODES)
    finally:
        os.umask(earlier)
    folder = described.directory / "keys"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / ".gitignore").read_text() == "*\n"
    assert sorted(path.name for path in folder.iterdir()) == [".gitignore", *sorted(f"{name}.key" for name in NODES)]
    for path in made.values():
        assert path.stat().st_mode & 0o777 == 0o600
        assert len(path.read_bytes()) == 65 and bytes.fromhex(path.read_text()) == load_key(path)
    assert len({load_key(path) for path in made.values()}) == len(NODES)


def test_the_ring_is_by_unique_id_and_shows_no_key(described: Federation) -> None:
    made = make_keys(described, ["uno-2"])
    ring = keyring(described)
    assert list(ring) == [named_uid("uno-2")]
    key = ring[named_uid("uno-2")]
    assert key.secret == load_key(made["uno-2"])
    assert key.secret.hex() not in repr(key) and repr(key.secret) not in repr(key)
    assert key.flash == f"coordinator flash uno-2 --federation {described.path}"


def test_new_makes_what_is_missing_and_replaces_nothing(
    described: Federation, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = coordinator(described, capsys, "keys", "new", "uno-2", "--json")
    assert code == 0 and [row["node"] for row in json.loads(out)] == ["uno-2"]
    first = contents(described)
    code, out, _ = coordinator(described, capsys, "keys", "new")
    assert code == 0 and set(contents(described)) == set(NODES)
    assert contents(described)["uno-2"] == first["uno-2"]
    assert "coordinator flash NAME" in out and "uno-2" not in out
    every = contents(described)
    for words in (["uno-1"], ["uno-2", "uno-1"]):
        code, _, err = coordinator(described, capsys, "keys", "new", *words)
        assert code == 2 and "--force makes a new key" in err and f"`coordinator flash {words[0]}`" in err
    code, out, _ = coordinator(described, capsys, "keys", "new")
    assert code == 0 and f"every node of {described.path} has a key" in out
    assert contents(described) == every
    assert coordinator(described, capsys, "keys", "new", "uno-1", "--force")[0] == 0
    assert {name for name, key in contents(described).items() if key != every[name]} == {"uno-1"}


def test_a_key_for_nobody(described: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = coordinator(described, capsys, "keys", "new", "uno-3")
    assert code == 2 and f"uno-3: no node of {described.path}; expected one of uno-1, uno-2, esp32dev-1" in err
    assert not (described.directory / "keys").exists()


def test_list_tells_keys_apart_and_shows_none(described: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_keys(described, NODES[:2])
    code, out, _ = coordinator(described, capsys, "keys", "list", "--json")
    assert code == 0
    assert json.loads(out) == [
        *(
            {"node": name, "fingerprint": fingerprint(load_key(made[name])), "file": str(made[name])}
            for name in NODES[:2]
        ),
        {"node": "esp32dev-1", "fingerprint": "", "file": ""},
    ]
    _, table, _ = coordinator(described, capsys, "keys", "list")
    for path in made.values():
        assert path.read_text().strip() not in out + table
        assert fingerprint(load_key(path)) in table


def bare(path: Path) -> None:
    path.write_text(KEY.hex() + "\n")
    path.chmod(0o600)


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def looped(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


BAD: list[tuple[str, Callable[[Path], object], str]] = [
    ("short", lambda path: path.write_text(KEY.hex()[:-1]), "is no key; expected 64 hexadecimal digits and a newline"),
    ("long", lambda path: path.write_text(KEY.hex() + "00\n"), "is no key; .*`coordinator keys new uno-1 --force`"),
    ("more", lambda path: path.write_text(KEY.hex() + "\n\n"), "is no key"),
    ("digits", lambda path: path.write_text("x" + KEY.hex()[1:]), "is no key"),
    ("binary", lambda path: path.write_bytes(b"\xff" * 64), "is no key"),
    (
        "group",
        lambda path: path.chmod(0o640),
        r"others may read this key \(mode 0640\); .* `chmod 600 '?/.*uno-1.key'?`",
    ),
    ("others", lambda path: path.chmod(0o604), r"mode 0604"),
    ("gone", lambda path: path.unlink(), "No such file"),
    ("pipe", piped, "is no key"),
    ("loop", looped, "Too many levels of symbolic links"),
]


@pytest.mark.parametrize(("spoil", "words"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_key_is_said_in_words_and_never_shown(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    path = tmp_path / "uno-1.key"
    bare(path)
    assert load_key(path) == KEY
    spoil(path)
    with pytest.raises(KeyFileError, match=words) as refusal:
        load_key(path)
    assert KEY.hex()[1:-1] not in str(refusal.value)


def test_list_goes_on_past_a_bad_key(described: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    make_keys(described, NODES)["uno-1"].chmod(0o644)
    code, out, _ = coordinator(described, capsys, "keys", "list", "--json")
    rows = json.loads(out)
    assert code == 14 and [bool(row["fingerprint"]) for row in rows] == [False, True, True]
    assert "chmod 600" in rows[0]["file"]


def test_a_folder_that_cannot_be_written(described: Federation, capsys: pytest.CaptureFixture[str]) -> None:
    (described.directory / "keys").write_text("in the way")
    code, _, err = coordinator(described, capsys, "keys", "new")
    assert code == 14 and "keys: File exists; expected a folder that this user may write" in err
