/* Where the shard lies, for C++ and the assembler. A build without a shard has no shard.h. */
#ifndef SHARD_PLACE_H
#define SHARD_PLACE_H

#if defined(__has_include)
#if __has_include("shard.h")
#include "shard.h"
#endif
#endif

/* ELPM reaches 64 KB without touching RAMPZ, so no sample may lie across such a border: samples are packed into blocks of
 * this size, aligned to it. 4 KB wastes 176 bytes of every block for MNIST's 784 a sample. */
#define SHARD_BLOCK_BITS 12
#define SHARD_BLOCK 4096
#define SHARD_BLOCK_SAMPLES (SHARD_BLOCK / SHARD_FEATURES)

#endif
