"""Turn what pydantic and tomllib say of a federation file into one sentence with its line."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from .errors import shown

Key = tuple[str | int, ...]
MAX_PARSED = 1 << 20  # characters; a hostile file must not make the search for its lines quadratic

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
TIER_NAME = r"^[a-z][a-z0-9_]{0,11}$"  # HELLO has 12 bytes for it, and C sees it
UNIQUE_ID = r"^[0-9A-Fa-f]{16}$"
TOO_DEEP = "nested too deeply to be a federation file"
PATTERNS = {
    FILE_NAME: "at most 63 letters, digits, dots, - or _, a letter or digit first",
    TIER_NAME: "at most 12 small letters, digits or _, a letter first",
    UNIQUE_ID: "16 hex digits",
}

# pydantic's kind of error -> what was expected; {…} are from its context.
EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "dict_type": "a table",
    "model_type": "a table",
    "model_attributes_type": "a table",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "string_too_short": "text that is not empty",
}


class At(ValueError):  # noqa: N818 - read as "raise At(place, …)"
    """A validator's complaint about another place of the file than the one it looks at."""

    def __init__(self, loc: Key, message: str) -> None:
        super().__init__(message)
        self.loc = loc


def syntax_error(path: Path, error: Exception) -> str:
    """Return the sentence for a file that is not TOML; tomllib puts the place at the end of its message."""
    found = re.fullmatch(r"(.*) \(at (?:line (\d+), column \d+|end of document)\)", str(error), re.DOTALL)
    if isinstance(error, RecursionError):
        return f"{path}: {TOO_DEEP}"
    if not isinstance(error, tomllib.TOMLDecodeError):
        return f"{path}: holds a number of too many digits; expected a federation file"
    if not found:
        return shown(f"{path}: not TOML: {error}")
    place = f"{path}:{found[2]}" if found[2] else f"{path}: at its end"
    return shown(f"{place}: not TOML: {found[1]}")


def explain(error: ValidationError, root: type[BaseModel], source: str, path: Path) -> str:
    """Return one sentence about the first error, in file order, of a document that `root` refused."""
    lines = key_lines(source)
    found = error.errors(include_url=False)
    if found[0]["type"] == "json_invalid":  # it was made by json.dumps: all that can be wrong is its depth
        return f"{path}: {TOO_DEEP}"
    # "Too short" is also said of a list whose members are wrong: what is wrong with a part goes before.
    wholes = {place[:size] for place in map(_place, found) for size in range(len(place))}
    details = [detail for detail in found if _place(detail) not in wholes]
    placed = sorted((_line(lines, _place(detail)), index) for index, detail in enumerate(details))
    line, index = placed[0]
    return shown(f"{path}:{line}: {_sentence(details[index], root, lines)}")


def _place(detail: ErrorDetails) -> Key:
    error = detail.get("ctx", {}).get("error")
    return error.loc if isinstance(error, At) else detail["loc"]


def _sentence(detail: ErrorDetails, root: type[BaseModel], lines: dict[Key, int]) -> str:
    loc, kind, value = _place(detail), detail["type"], detail["input"]
    name = show(loc)
    if kind == "extra_forbidden":
        known = _keys(root, loc[:-1])
        close = difflib.get_close_matches(str(loc[-1]), known, 1, 0.6)
        hint = f'; did you mean "{close[0]}"?' if close else f"; expected one of {', '.join(known)}"
        return f"unknown key {_toml(loc[-1])}{_inside(loc)}{hint}"
    if kind == "missing" and isinstance(loc[-1], int):
        return f"{show(loc[:-1])} is {_toml(value)}; expected more than {loc[-1]} of them"
    if kind == "missing":
        present = [str(key[-1]) for key in lines if key[:-1] == loc[:-1] and key]
        unknown = [key for key in present if key not in _keys(root, loc[:-1])]
        close = difflib.get_close_matches(str(loc[-1]), unknown, 1, 0.6)
        hint = f'; found "{close[0]}": did you mean "{loc[-1]}"?' if close else ""
        return f'expected the key "{loc[-1]}"{_inside(loc)}, found none{hint}'
    if kind == "value_error":
        reason = str(detail["ctx"]["error"])
        return f"{name} {reason}" if name and reason.startswith(("is ", "has ")) else f"{name}: {reason}".lstrip(": ")
    if loc and loc[-1] == "[key]":
        return f"{show(loc[:-2])}: {value!r} is no name; expected {_expected(detail)}"
    return f"{name} is {_toml(value)}; expected {_expected(detail)}{_close_value(detail)}"


def _expected(detail: ErrorDetails) -> str:
    if detail["type"] == "string_pattern_mismatch":
        return PATTERNS[detail["ctx"]["pattern"]]
    template = EXPECTED.get(detail["type"])
    if template is None:
        return detail["msg"].removeprefix("Input should be ")
    return template.format(**detail.get("ctx", {}))


def _close_value(detail: ErrorDetails) -> str:
    if detail["type"] != "literal_error" or not isinstance(detail["input"], str):
        return ""
    choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
    close = difflib.get_close_matches(detail["input"], choices, 1, 0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def _toml(value: Any) -> str:
    text = {True: "true", False: "false"}.get(value) if isinstance(value, bool) else None
    text = text or (f'"{value}"' if isinstance(value, str) else "a table" if isinstance(value, dict) else repr(value))
    return text if len(text) <= 60 else text[:57] + "…"


def show(loc: Iterable[str | int]) -> str:
    """Return a key path as people write it: ("nodes", 0, "board") is nodes[1].board, counted from 1."""
    text = ""
    for part in loc:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".")


def _inside(loc: tuple[str | int, ...]) -> str:
    if len(loc) < 2:
        return ""
    table = show(part for part in loc[:-1] if isinstance(part, str))
    return f" in [[{table}]]" if isinstance(loc[-2], int) else f" in [{table}]"


def _keys(root: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the table at `loc` may have."""
    model: Any = root
    for part in loc:
        if isinstance(part, str):
            field = next(f for name, f in model.model_fields.items() if part in (name, f.alias))
            model = field.annotation
        else:
            model = get_args(model)[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _line(lines: dict[Key, int], loc: tuple[str | int, ...]) -> int:
    """Return the line of the longest part of `loc` that the file spells out; 1 if it spells out none of it."""
    return next((lines[loc[:end]] for end in range(len(loc), 0, -1) if loc[:end] in lines), 1)


def key_lines(source: str) -> dict[Key, int]:
    """Return the line, from 1, of every table header and key of a valid TOML document."""
    lines: dict[Key, int] = {}
    table: Key = ()
    counts: dict[Key, int] = {}
    for number, text in _statements(source):
        parsed = tomllib.loads(text)
        if not text.startswith("["):
            for key in _paths(parsed):
                lines.setdefault(table + key, number)
            continue
        table = _header(text, parsed, counts)
        lines.setdefault(table, number)
        lines.setdefault(table[:-1] if text.startswith("[[") else table, number)
    return lines


def _header(text: str, parsed: dict[str, Any], counts: dict[Key, int]) -> Key:
    """Return the key path of a table header; `counts` holds the last index of every array of tables so far."""
    names = [part for part in max(_paths(parsed), key=len) if isinstance(part, str)]
    table: Key = ()
    for place, name in enumerate(names, 1):
        table += (name,)
        if text.startswith("[[") and place == len(names):
            counts[table] = counts.get(table, -1) + 1
        if table in counts:
            table += (counts[table],)
    return table


def _statements(source: str) -> Iterator[tuple[int, str]]:
    """Yield the first line's number and the text of every statement: the shortest run of lines that is TOML."""
    start, text, parsed_so_far = 0, "", 0
    for number, line in enumerate(source.split("\n"), 1):
        start, text = (start, f"{text}\n{line}") if text else (number, line.strip())
        parsed_so_far += len(text)
        if parsed_so_far > MAX_PARSED:
            return
        try:
            parsed = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        if parsed:
            yield start, text
        text = ""


def _paths(value: Any, prefix: Key = ()) -> Iterator[Key]:
    """Yield the path of everything inside a parsed statement."""
    if prefix:
        yield prefix
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from _paths(inner, (*prefix, key))
