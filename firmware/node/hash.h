/* One integer hash, 32 bits wide so that 8-bit cores can afford it: sample order and stochastic rounding draw from it. */
#ifndef HASH_H
#define HASH_H

#include <stdint.h>

/* "lowbias32" (C. Wellons, Prospecting for Hash Functions, 2018; public domain): a bijection, bias 0.17. */
static inline uint32_t hash32(uint32_t x)
{
    x ^= x >> 16;
    x *= UINT32_C(0x7FEB352D);
    x ^= x >> 15;
    x *= UINT32_C(0x846CA68B);
    x ^= x >> 16;
    return x;
}

#endif
