"""protocol.h: the messages of protocol.py as C99 structs with readers and writers that check lengths and copy bytes."""

from __future__ import annotations

import enum
import re
import struct
from dataclasses import dataclass, fields
from typing import get_args, get_type_hints

from codegen import protocol

_ENUMS: tuple[tuple[str, type[enum.IntEnum]], ...] = (
    ("FRAME", protocol.FrameType),
    ("STATE", protocol.State),
    ("ENCODING", protocol.Encoding),
    ("TRANSFER", protocol.TransferKind),
    ("SOURCE", protocol.Source),
    ("KERNEL", protocol.Kernel),
    ("ERROR", protocol.ErrorCode),
)
_C_TYPES = {"B": "uint8_t", "H": "uint16_t", "I": "uint32_t", "f": "float"}
_SUFFIX = {"B": "u8", "H": "u16", "I": "u32", "f": "f32"}

_HEAD = """\
/* Made from codegen/protocol.py; do not edit. The messages and what they mean are in docs/protocol.md. */
#ifndef PROTOCOL_H
#define PROTOCOL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>
"""

_HELPERS = """\
/// Little-endian bytes, whatever the machine and its alignment ///

static inline uint8_t protocol_get_u8(const uint8_t *at) { return at[0]; }
static inline uint16_t protocol_get_u16(const uint8_t *at)
{
    return (uint16_t)(at[0] | (uint16_t)((uint16_t)at[1] << 8));
}
static inline uint32_t protocol_get_u32(const uint8_t *at)
{
    return protocol_get_u16(at) | (uint32_t)protocol_get_u16(at + 2) << 16;
}
static inline float protocol_get_f32(const uint8_t *at)
{
    const uint32_t bits = protocol_get_u32(at);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
static inline void protocol_put_u8(uint8_t *at, uint8_t value) { at[0] = value; }
static inline void protocol_put_u16(uint8_t *at, uint16_t value)
{
    at[0] = (uint8_t)value;
    at[1] = (uint8_t)(value >> 8);
}
static inline void protocol_put_u32(uint8_t *at, uint32_t value)
{
    protocol_put_u16(at, (uint16_t)value);
    protocol_put_u16(at + 2, (uint16_t)(value >> 16));
}
static inline void protocol_put_f32(uint8_t *at, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    protocol_put_u32(at, bits);
}
"""


@dataclass(frozen=True)
class _Field:
    """One field of a message: where it starts and its `struct` code ('*' in front: a tail)."""

    name: str
    code: str
    offset: int
    element: type

    @property
    def tail(self) -> bool:
        return self.code.startswith("*")

    @property
    def declaration(self) -> str:
        if self.code.endswith("s"):
            element = "char" if self.element is str else "uint8_t"
            return f"{element} {self.name}[{self.code[:-1]}]"
        return f"{_C_TYPES[self.code]} {self.name}"

    @property
    def read(self) -> str:
        if self.code.endswith("s"):
            return f"memcpy(out->{self.name}, payload + {self.offset}, {self.code[:-1]});"
        return f"out->{self.name} = protocol_get_{_SUFFIX[self.code]}(payload + {self.offset});"

    @property
    def write(self) -> str:
        if self.code.endswith("s"):
            return f"memcpy(payload + {self.offset}, in->{self.name}, {self.code[:-1]});"
        return f"protocol_put_{_SUFFIX[self.code]}(payload + {self.offset}, in->{self.name});"


def message_name(message: type[protocol.Message]) -> str:
    """Return the snake-case name of a message: HelloRequest is hello_request."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", message.__name__).lower()


def _fields(message: type[protocol.Message]) -> list[_Field]:
    hints = get_type_hints(message, include_extras=True)
    found: list[_Field] = []
    offset = 0
    for field in fields(message):
        element, code = get_args(hints[field.name])
        found.append(_Field(field.name, code, offset, element))
        offset += 0 if code.startswith("*") else struct.calcsize("<" + code)
    return found


def _tail(prefix: str, field: _Field) -> list[str]:
    """Return the helpers of a tail: where it starts and, unless it is text, how to count, get and set elements."""
    at = f"MESSAGE_{prefix.upper()}_{field.name.upper()}_OFFSET"
    lines = [f"#define {at} {field.offset}"]
    code = field.code[1:]
    if code == "s":
        return lines
    width, c_type, suffix = struct.calcsize("<" + code), _C_TYPES[code], _SUFFIX[code]
    name = f"message_{prefix}_{field.name}"
    return [
        *lines,
        f"static inline uint8_t {name}_count(uint8_t length)",
        "{",
        f"    return (uint8_t)((length - {at}) / {width});",
        "}",
        f"static inline {c_type} {name}_get(const uint8_t *payload, uint8_t index)",
        "{",
        f"    return protocol_get_{suffix}(payload + {at} + (uint16_t)index * {width}U);",
        "}",
        f"static inline void {name}_set(uint8_t *payload, uint8_t index, {c_type} value)",
        "{",
        f"    protocol_put_{suffix}(payload + {at} + (uint16_t)index * {width}U, value);",
        "}",
    ]


def _message(message: type[protocol.Message]) -> str:
    prefix = message_name(message)
    found = _fields(message)
    fixed = [field for field in found if not field.tail]
    tails = [field for field in found if field.tail]
    size = f"MESSAGE_{prefix.upper()}_SIZE"
    total = struct.calcsize(message.layout()[0])
    lines = [f"/// {message.type.name} ///", "", f"#define {size} {total}{' /* and a tail */' if tails else ''}"]
    if fixed:
        struct_name = f"struct message_{prefix}"
        wrong = f"length != {size}"
        if tails:
            width = struct.calcsize("<" + tails[0].code[1:])
            wrong = f"length < {size}" + (f" || (length - {size}) % {width} != 0" if width > 1 else "")
        lines += [
            f"{struct_name} {{",
            *(f"    {field.declaration};" for field in fixed),
            "};",
            f"static inline bool message_{prefix}_read(const uint8_t *payload, uint8_t length, {struct_name} *out)",
            "{",
            f"    if ({wrong}) {{",
            "        return false;",
            "    }",
            *(f"    {field.read}" for field in fixed),
            "    return true;",
            "}",
            f"static inline uint8_t message_{prefix}_write(uint8_t *payload, const {struct_name} *in)",
            "{",
            *(f"    {field.write}" for field in fixed),
            f"    return {size};",
            "}",
        ]
    for field in tails:
        lines += _tail(prefix, field)
    return "\n".join(lines) + "\n"


def protocol_header() -> str:
    """Return the text of protocol.h.

    A message with fixed fields gets a struct, `message_<name>_read` (false if the length is wrong) and
    `message_<name>_write` (returns the bytes written, the tail not counted); a tail gets its offset and helpers.
    """
    constants = [
        f"#define PROTOCOL_VERSION {protocol.PROTOCOL_VERSION}",
        f"#define PROTOCOL_Q8_BLOCK {protocol.Q8_BLOCK}",
        f"#define PROTOCOL_NO_LABEL 0x{protocol.NO_LABEL:04X}",
        f"#define PROTOCOL_MAC_BYTES {protocol.MAC_BYTES}",
        f"#define PROTOCOL_NONCE_BYTES {protocol.NONCE_BYTES}",
    ]
    for prefix, values in _ENUMS:
        constants += ["", *(f"#define {prefix}_{value.name} {value.value}" for value in values)]
    parts = [_HEAD, "\n".join(constants) + "\n", _HELPERS, *(_message(message) for message in protocol.MESSAGES)]
    return "\n".join(parts) + "\n#endif\n"
