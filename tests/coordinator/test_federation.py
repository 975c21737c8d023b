"""The federation file: what it gives, and what it says of every slip."""

import contextlib
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from boards import PROJECT_ROOT
from coordinator.errors import FederationError
from coordinator.federation import MAX_FILE, Federation, load, parse
from coordinator.federation_errors import MAX_PARSED, key_lines

EXAMPLE = PROJECT_ROOT / "examples" / "mnist" / "federation.toml"
SOURCE = """\
name = "mnist"
seed = 1

[model]
path = "model.py"

[tiers]
expanded = 1.0
micro = [2,
  4, 4]

[data]
path = "mnist.npz"
split = "iid"
range = [0.0, 1.0]

[training]
rounds = 10
batch = 8
learning_rate = 0.1
nested = true

[aggregation]
min_nodes = 2

[[nodes]]
board = "esp32dev"
count = 2

[[nodes]]
name = "desk"
board = "megaatmega2560"
uid = "00112233445566FF"
"""


def _load(folder: Path, text: str) -> Federation:
    path = folder / "federation.toml"
    path.write_text(text, encoding="utf-8")
    return load(path)


def test_the_example_is_valid_and_names_its_eleven_nodes() -> None:
    federation = load(EXAMPLE)
    names = [node.name for node in federation.nodes()]
    assert len(names) == len(set(names)) == 11
    assert names[:3] == ["esp32dev-1", "esp32dev-2", "nrf52840_dk-1"]
    assert federation.model_path == EXAMPLE.parent / "model.py"
    assert federation.data_path.is_file()


def test_nodes_tiers_and_rates(tmp_path: Path) -> None:
    federation = _load(tmp_path, SOURCE)
    assert [(node.name, node.uid) for node in federation.nodes()] == [
        ("esp32dev-1", None),
        ("esp32dev-2", None),
        ("desk", "00112233445566ff"),
    ]
    assert [(tier.name, tier.width, tier.channels) for tier in federation.tier_list()] == [
        ("expanded", 1.0, None),
        ("micro", None, (2, 4, 4)),
    ]
    assert federation.plan_settings().input_range == (0.0, 1.0)
    assert federation.training.rate(1) == federation.training.rate(9) == 0.1
    assert _load(tmp_path, SOURCE.replace("batch", "learning_rate_decay = 0.5\nbatch")).training.rate(3) == 0.025


def test_a_board_has_one_source_of_samples(tmp_path: Path) -> None:
    assert {node.source for node in _load(tmp_path, SOURCE).nodes()} == {"flash"}
    streamed = _load(tmp_path, SOURCE.replace('"megaatmega2560"', '"megaatmega2560"\nsource = "stream"'))
    assert [node.source for node in streamed.nodes()] == ["flash", "flash", "stream"]
    settings = streamed.plan_settings()
    assert (settings.sources, settings.samples_per_node) == (
        {"megaatmega2560": "stream"}, streamed.data.samples_per_node
    )  # fmt: skip


def test_trainable_is_a_list_or_auto(tmp_path: Path) -> None:
    assert _load(tmp_path, SOURCE).model.trainable is None
    for written, read in (('"auto"', "auto"), ('["a", "b"]', ("a", "b")), ("[]", ())):
        text = SOURCE.replace("model.py", f'model.py"\ntrainable = {written}\n#')
        assert _load(tmp_path, text).model.trainable == read


def test_the_digest_is_of_the_meaning(tmp_path: Path) -> None:
    digest = _load(tmp_path, SOURCE).digest
    assert _load(tmp_path, "# a comment\n" + SOURCE.replace('split = "iid"\n', "")).digest == digest
    assert _load(tmp_path, SOURCE.replace("seed = 1", "seed = 2")).digest != digest


# (found in SOURCE, what is written instead, line of the error, what the sentence must hold)
SLIPS = [
    (
        "learning_rate =",
        "learnin_rate =",
        20,
        'unknown key "learnin_rate" in [training]; did you mean "learning_rate"?',
    ),
    ("seed =", "zzz =", 2, 'unknown key "zzz"; expected one of name, seed, model'),
    ("[aggregation]", "[agregation]", 23, 'unknown key "agregation"; did you mean "aggregation"?'),
    ("count =", "coutn =", 28, 'unknown key "coutn" in [[nodes]]; did you mean "count"?'),
    ('path = "model.py"', 'pth = "model.py"', 4, 'expected the key "path" in [model], found none; found "pth"'),
    (
        'path = "model.py"',
        'path = "model.py"\ntrainable = "conv1"',
        6,
        "model.trainable is 'conv1'; expected a list of layer names, or \"auto\"",
    ),
    ('path = "model.py"', 'path = "model.py"\ntrainable = [1]', 6, "model.trainable is [1]; expected a list of layer"),
    ('path = "model.py"', "", 4, 'expected the key "path" in [model], found none'),
    ("[[nodes]]", "[[nods]]", 1, 'expected the key "nodes", found none; found "nods"'),
    ("batch = 8", 'batch = "8"', 19, 'training.batch is "8"; expected a whole number'),
    ("batch = 8", "batch = 8.5", 19, "training.batch is 8.5; expected a whole number"),
    ("batch = 8", "batch = true", 19, "training.batch is true; expected a whole number"),
    ("batch = 8", "batch = 256", 19, "expected 255 or less"),
    ("rounds = 10", "rounds = 0", 18, "training.rounds is 0; expected 1 or more"),
    ("rounds = 10", "patience = 3", 18, "training.patience is 3, but [data] has no validation images, by which alone"),
    ("rounds = 10", "rounds = 1979-05-27", 18, "training.rounds is ['1979-05-27']; expected a whole number"),
    ("= 0.1", "= inf", 20, "training.learning_rate is inf; expected a finite number"),
    ("= 0.1", "= -0.1", 20, "expected more than 0"),
    ("= true", "= 1", 21, "training.nested is 1; expected true or false"),
    ('"iid"', '"dirichle"', 14, "expected 'iid', 'dirichlet', 'shards' or 'owner'; did you mean \"dirichlet\"?"),
    ("[0.0, 1.0]", "[1.0, 0.0]", 15, "expected two finite numbers, the lower first"),
    ("[0.0, 1.0]", "[1.0]", 15, "data.range is [1.0]; expected more than 1 of them"),
    ("[0.0, 1.0]", "[0.0, 1.0, 2.0]", 15, "expected at most 2 of them"),
    ("expanded = 1.0", "expanded = 2", 8, "tiers.expanded is 2; expected a width in (0, 1]"),
    ("  4, 4]", "  0, 4]", 9, "or a list of channel counts, at least 1 each"),
    ("micro =", "Micro-2 =", 9, "tiers: 'Micro-2' is no name; expected at most 12 small letters"),
    ("min_nodes = 2", "min_nodes = 4", 24, "aggregation.min_nodes is 4; expected at most 3, the number of nodes"),
    (
        "min_nodes = 2",
        'method = "hybrid"',
        24,
        "aggregation.method is 'hybrid', which distils on a proxy set; expected a [proxy] table with images",
    ),
    ("min_nodes = 2", 'method = "hybird"', 24, 'did you mean "hybrid"?'),
    ("min_nodes = 2", 'robust = "kurm"', 24, 'did you mean "krum"?'),
    (
        "[aggregation]",
        '[proxy]\n[aggregation]\nmethod = "distillation"\nserver = "adam"',
        26,
        "aggregation.server is 'adam', but method = \"distillation\" takes no mean; expected 'none'",
    ),
    ("min_nodes = 2", "average = 1", 24, "aggregation.average is 1; expected less than 1"),
    ("[aggregation]", "[proxy]\nrehearsals = 256\n[aggregation]", 24, "proxy.rehearsals is 256; expected 255 or less"),
    ("[aggregation]", "[proxy]\nimages = -1\n[aggregation]", 24, "proxy.images is -1; expected 0 or more"),
    ("[aggregation]", "[proxy]\npath = 3\n[aggregation]", 24, "proxy.path is 3; expected text in quotes"),
    ('"desk"', '"esp32dev-1"', 31, "nodes[2].name is 'esp32dev-1', as of another node"),
    ('"desk"', '"../desk"', 31, 'nodes[2].name is "../desk"; expected at most 63 letters'),
    ('"desk"', '"\\u001b[2J"', 31, 'nodes[2].name is "\\x1b[2J"; expected at most 63'),  # no command to a terminal
    ("66FF", "66FG", 33, "expected 16 hex digits"),
    ('"desk"', '"desk"\ncount = 2', 30, "nodes[2] has a uid and count = 2"),
    (
        '"megaatmega2560"',
        '"esp32dev"\nsource = "stream"',
        33,
        "source is 'stream', but an earlier esp32dev has 'flash'",
    ),
    ('"desk"', '"desk"\nmodel = "model.py"', 32, "nodes[2].model is 'model.py', the global model; leave it out"),
    ('"desk"', '"desk"\nmodel = "own.py"', 32, 'expected a [proxy] table with images, and method = "hybrid" or'),
    ("count = 2", 'model = "my-own.py"\n[proxy]', 28, "expected a file whose name is at most 12 small letters"),
    ("count = 2", 'model = "nets/micro.py"\n[proxy]', 28, "but [tiers] has a tier 'micro'; expected another name"),
    (
        "count = 2",
        'model = "own.py"\n[proxy]\n[[nodes]]\nboard = "uno"\nmodel = "b/own.keras"',
        32,
        "is 'b/own.keras', but 'own.py' is called 'own' too; rename one",
    ),
    ('"desk"', '"desk"\nsource = "usb"', 32, "expected 'flash', 'stream' or 'sensor'"),
    ('"megaatmega2560"', '"mega"', 32, 'no board "mega"'),
    ("seed = 1", "seed =", 2, "not TOML"),
    ("[model]", "[model", 4, "not TOML"),
]


@pytest.mark.parametrize(("found", "written", "line", "said"), SLIPS, ids=[slip[3][:40] for slip in SLIPS])
def test_a_slip_is_named_with_its_line(tmp_path: Path, found: str, written: str, line: int, said: str) -> None:
    times = -1 if found == "[[nodes]]" else 1
    with pytest.raises(FederationError) as caught:
        _load(tmp_path, SOURCE.replace(found, written, times))
    sentence = str(caught.value)
    assert sentence.startswith(f"{tmp_path / 'federation.toml'}:{line}: "), sentence
    assert said in sentence
    assert "\n" not in sentence


def test_a_slip_in_the_only_node_is_not_a_lack_of_nodes(tmp_path: Path) -> None:
    alone = SOURCE[: SOURCE.index("[[nodes]]")].replace("min_nodes = 2", "") + '[[nodes]]\nboard = "mega"\n'
    with pytest.raises(FederationError, match='no board "mega"'):
        _load(tmp_path, alone)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "not UTF-8"),
        (b"x = " + b"[" * 5000, "nested too deeply|not TOML"),
        (b"[" + b".".join([b"a"] * 300) + b"]", "nested too deeply"),
        (b"[" + b".".join([b"a"] * 5000) + b"]", "nested too deeply"),
        (b"seed = " + b"9" * 5000, "too many digits"),
        (b"seed = 0x" + b"f" * 5000, "too many digits"),
        (b"#" * (MAX_FILE + 1), "a federation file has at most"),
        (b"", 'expected the key "name", found none'),
        (b'x = """', "at its end: not TOML"),
    ],
)
def test_what_is_no_federation_file(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "federation.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FederationError, match=said):
        load(path)


def test_windows_line_ends_count_as_one_line(tmp_path: Path) -> None:
    path = tmp_path / "federation.toml"
    path.write_bytes(SOURCE.replace("batch = 8", "batch = 0").replace("\n", "\r\n").encode())
    with pytest.raises(FederationError, match=":19: "):
        load(path)


def test_lines_of_keys() -> None:
    source = '# [no]\na.b = 1\n[t."x y"]\nk = """\n[no]\nj = 1\n"""\nl = [\n 1,\n]\n'
    source += "[[n]]\nm = {p = 1}\n[[n]]\n[n.s]\nq = 1\n"
    assert key_lines(source) == {
        ("a",): 2, ("a", "b"): 2, ("t", "x y"): 3, ("t", "x y", "k"): 4, ("t", "x y", "l"): 8, ("t", "x y", "l", 0): 8,
        ("n",): 11, ("n", 0): 11, ("n", 0, "m"): 12, ("n", 0, "m", "p"): 12, ("n", 1): 13, ("n", 1, "s"): 14,
        ("n", 1, "s", "q"): 15,
    }  # fmt: skip


def test_a_hostile_statement_ends_the_search_for_lines() -> None:
    assert key_lines("a = 1\nb = [\n" + "1,\n" * int(MAX_PARSED**0.5) + "]\n") == {("a",): 1}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@given(st.sampled_from(["name", "model", "tiers", "data", "training", "link", "nodes", "seed", "x"]), VALUES)
def test_any_value_anywhere_is_taken_or_refused_in_a_sentence(key: str, value: object) -> None:
    document = tomllib.loads(SOURCE) | {key: value}
    try:
        parse(document, SOURCE, Path("f.toml"))
    except FederationError as error:
        assert str(error).startswith("f.toml:")


@given(st.data())
def test_any_damage_to_the_text_is_taken_or_refused_in_a_sentence(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(SOURCE)))
    end = data.draw(st.integers(start, min(start + 30, len(SOURCE))))
    source = SOURCE[:start] + data.draw(st.text(alphabet='ab01=[]{}".,\n -_', max_size=10)) + SOURCE[end:]
    with contextlib.suppress(tomllib.TOMLDecodeError, FederationError):
        parse(tomllib.loads(source), source, Path("f.toml"))
