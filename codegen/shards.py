"""How many bytes of flash a shard takes: the layout of firmware/ports/common/shard.S, and of an array elsewhere."""

from __future__ import annotations

from boards import Board

AVR = "atmelavr"
AVR_NEAR = 65_536  # bytes of flash that an AVR reads without RAMPZ
BLOCK = 4096  # SHARD_BLOCK of firmware/ports/common/shard_place.h
LABEL_BYTES = 2  # beside each sample, of a proxy image NO_LABEL


def shard_bytes(board: Board, features: int, samples: int) -> int:
    """Return the most bytes that `samples` of so many features take, wherever the program ends."""
    if samples == 0:
        return 0
    if not _in_blocks(board):
        return samples * (features + LABEL_BYTES) + 3  # to align what follows
    each = BLOCK // features
    full, rest = divmod(samples - 1, each)
    content = full * BLOCK + (rest + 1) * features + 1 + samples * LABEL_BYTES
    return BLOCK - 1 + -(-content // BLOCK) * BLOCK  # the assembler fills a section up to its alignment


def samples_that_fit(board: Board, features: int, room: int) -> int:
    """Return how many samples fit `room` bytes of flash."""
    if _in_blocks(board) and features > BLOCK:
        return 0
    low, high = 0, max(0, room) // (features + LABEL_BYTES)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if shard_bytes(board, features, middle) <= room else (low, middle - 1)
    return low


def _in_blocks(board: Board) -> bool:
    return board.training.env == AVR and board.flash > AVR_NEAR
