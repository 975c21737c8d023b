"""What can go wrong between the host and a node, in words for people."""

from __future__ import annotations

from collections.abc import Callable

from codegen.protocol import BY_TYPE, ErrorCode, State


class LinkError(Exception):
    """Base of everything that goes wrong on a link."""


class PortError(LinkError):
    """A port that cannot be opened; the message says why and how to see the list."""


class PortBusy(PortError):  # noqa: N818
    """Another program has the port open."""


class LinkLost(LinkError):  # noqa: N818
    """The port vanished or was closed."""


class ProtocolMismatch(LinkError):  # noqa: N818
    """The node speaks another version of the protocol."""


class LinkTimeout(LinkError):  # noqa: N818
    """The node did not answer in time."""


class AuthenticationError(LinkError):
    """Who answers cannot prove to be who it says it is, or what it sent."""


def _state(detail: int) -> str:
    return next((state.name for state in State if state == detail), str(detail))


def _frame(detail: int) -> str:
    return BY_TYPE[detail].type.name if detail in BY_TYPE else f"0x{detail:02x}"


_WORDS: dict[int, Callable[[int], str]] = {
    ErrorCode.MALFORMED: lambda detail: f"a {_frame(detail)} had the wrong length; rebuild and flash its firmware",
    ErrorCode.UNKNOWN: lambda detail: f"it does not know {_frame(detail)}; rebuild and flash its firmware",
    ErrorCode.WRONG_STATE: lambda detail: f"it cannot do that in state {_state(detail)}",
    ErrorCode.WRONG_ROUND: lambda detail: f"it is in round {detail}",
    ErrorCode.WRONG_SIZE: lambda detail: f"it expected {detail} bytes; rebuild and flash its firmware for this model",
    ErrorCode.BAD_CRC: lambda detail: f"the transfer arrived damaged (CRC-32 0x{detail:08x})",
    ErrorCode.UNSUPPORTED: lambda detail: f"it has no support for {detail} there",
    ErrorCode.NOT_FINITE: lambda detail: f"its loss became NaN or infinite at sample {detail}; lower the learning rate",
    ErrorCode.NO_SAMPLES: lambda _: "it has no samples to train on",
    ErrorCode.WRONG_POSITION: lambda detail: f"it waits for the sample at position {detail} of the round",
    ErrorCode.WRONG_LABEL: lambda detail: f"a sample's label is beyond its {detail} classes",
    ErrorCode.UNAUTHENTICATED: lambda detail: f"it has a key and wants proof of it before {_frame(detail)}",
    ErrorCode.WRONG_MAC: lambda detail: (
        f"it has a key, and what arrived before {_frame(detail)} does not fit it: that "
        "was changed on the way, or this host has no key for it"
    ),
    ErrorCode.NO_TARGETS: lambda _: "it is to rehearse proxy images, and their soft targets are missing",
}


class NodeError(LinkError):
    """A node refused or stopped: `code` is an ErrorCode (or a number this host does not know), `detail` its number."""

    def __init__(self, code: int, detail: int) -> None:
        words = _WORDS[code](detail) if code in _WORDS else f"error {code} ({detail}), unknown to this version"
        super().__init__(f"the node refused: {words}")
        self.code = code
        self.detail = detail
