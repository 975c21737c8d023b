/* Small numbers, each in as many bits as it needs: number i lies at bit i × bits, lowest bit first. They are bytes to C,
 * so they may lie in an arena of floats without breaking its rules on aliasing. Private to firmware/engine. */
#ifndef ENGINE_BITS_H
#define ENGINE_BITS_H

#include "inline.h"

/* Bits of a number below `count`: ⌈log2 count⌉, 0 to 16. */
static ENGINE_INLINE uint8_t engine_packed_bits(uint16_t count)
{
    uint8_t bits = 0;
    while (((uint32_t)1 << bits) < count) {
        bits++;
    }
    return bits;
}

static ENGINE_INLINE uint16_t engine_packed_read(const uint8_t *packed, uint8_t bits, uint32_t i)
{
    const uint32_t at = i * bits;
    const uint8_t shift = (uint8_t)(at & 7);
    uint32_t word = 0;
    packed += at >> 3;
    for (uint8_t have = 0; have < shift + bits; have = (uint8_t)(have + 8)) {
        word |= (uint32_t)*packed++ << have;
    }
    return (uint16_t)((word >> shift) & (((uint32_t)1 << bits) - 1));
}

/* Leaves the neighbours' bits as they are. */
static ENGINE_INLINE void engine_packed_write(uint8_t *packed, uint8_t bits, uint32_t i, uint16_t value)
{
    const uint32_t at = i * bits;
    const uint8_t shift = (uint8_t)(at & 7);
    uint32_t mask = (((uint32_t)1 << bits) - 1) << shift, word = (uint32_t)value << shift;
    for (packed += at >> 3; mask != 0; packed++, mask >>= 8, word >>= 8) {
        *packed = (uint8_t)((*packed & ~mask) | (word & mask));
    }
}

#endif
