/* The shard on AVR, behind the code: an array of C may hold 32 KB at most, and would take the place of what must lie
 * below 64 KB. */
#include "shard_place.h"

#if defined(__AVR__) && defined(SHARD_SAMPLES)
#include <avr/io.h>

    .section .text.shard, "ax", @progbits
#ifdef RAMPZ
#if SHARD_FEATURES > SHARD_BLOCK
#error "a sample must fit a block of flash"
#endif
    .p2align SHARD_BLOCK_BITS
    .macro sample bytes:vararg
    .p2align SHARD_BLOCK_BITS, 0, SHARD_FEATURES - 1
    .byte \bytes
    .endm
#else
    .macro sample bytes:vararg
    .byte \bytes
    .endm
#endif
    .global shard_features
    .type shard_features, @object
shard_features:
#define SHARD_ROW(label, ...) sample __VA_ARGS__
#include "shard.h"
    .size shard_features, . - shard_features

    .balign 2
    .global shard_labels
    .type shard_labels, @object
shard_labels:
#undef SHARD_ROW
#define SHARD_ROW(label, ...) .word label
#include "shard.h"
    .size shard_labels, . - shard_labels
#endif
