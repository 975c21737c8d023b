#include "blake2s.h"

#include <string.h>

#ifdef __AVR__
#include <avr/pgmspace.h>
/* In the program, among what its linker puts first: short instructions reach 64 KB. */
#define TABLE __attribute__((section(".progmem.gcc_link")))
#define COPY memcpy_P
#else
#define TABLE
#define COPY memcpy
#endif

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a block is read as it lies in memory: little-endian targets only"
#endif

#define BLOCK 64U
#define ROUNDS 10

static const uint32_t start[8] TABLE = {
    0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19,
};

/* The words that each G of a round adds: the first in the upper half of its byte. */
static const uint8_t schedule[ROUNDS * 8] TABLE = {
    0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF, 0xEA, 0x48, 0x9F, 0xD6, 0x1C, 0x02, 0xB7, 0x53,
    0xB8, 0xC0, 0x52, 0xFD, 0xAE, 0x36, 0x71, 0x94, 0x79, 0x31, 0xDC, 0xBE, 0x26, 0x5A, 0x40, 0xF8,
    0x90, 0x57, 0x24, 0xAF, 0xE1, 0xBC, 0x68, 0x3D, 0x2C, 0x6A, 0x0B, 0x83, 0x4D, 0x75, 0xFE, 0x19,
    0xC5, 0x1F, 0xED, 0x4A, 0x07, 0x63, 0x92, 0x8B, 0xDB, 0x7E, 0xC1, 0x39, 0x50, 0xF4, 0x86, 0x2A,
    0x6F, 0xE9, 0xB3, 0x08, 0xC2, 0xD7, 0x14, 0xA5, 0xA2, 0x84, 0x76, 0x15, 0xFB, 0x9E, 0x3C, 0xD0,
};

/* Ten rounds of mixing. */
#ifdef __AVR__
void blake2s_rounds(uint32_t v[16], const uint32_t block[16], const uint8_t pairs[ROUNDS * 8]); /* blake2s_avr.S */
#else
static uint32_t rotate(uint32_t x, uint8_t right)
{
    return x >> right | x << (32 - right);
}

static void blake2s_rounds(uint32_t v[16], const uint32_t block[16], const uint8_t pairs[ROUNDS * 8])
{
    for (uint8_t i = 0; i < ROUNDS * 8; i++) {
        const uint8_t turn = i >> 2 & 1; /* columns, then diagonals */
        uint32_t *const a = v + (i & 3), *const b = v + 4 + ((i + turn) & 3);
        uint32_t *const c = v + 8 + ((i + 2 * turn) & 3), *const d = v + 12 + ((i + 3 * turn) & 3);
        *a += *b + block[pairs[i] >> 4];
        *d = rotate(*d ^ *a, 16);
        *c += *d;
        *b = rotate(*b ^ *c, 12);
        *a += *b + block[pairs[i] & 15];
        *d = rotate(*d ^ *a, 8);
        *c += *d;
        *b = rotate(*b ^ *c, 7);
    }
}
#endif

static void compress(struct blake2s *state, bool last)
{
    uint32_t *const v = state->mixed;
    memcpy(v, state->chain, sizeof state->chain);
    COPY(v + 8, start, sizeof start);
    v[12] ^= state->count;
    if (last) {
        v[14] = ~v[14];
    }
    blake2s_rounds(v, state->block, schedule);
    for (uint8_t i = 0; i < 8; i++) {
        state->chain[i] ^= v[i] ^ v[8 + i];
    }
}

void blake2s_init(struct blake2s *state, uint8_t digest, const uint8_t *key, uint8_t key_length)
{
    memset(state, 0, sizeof *state);
    COPY(state->chain, start, sizeof start);
    state->chain[0] ^= UINT32_C(0x01010000) | (uint16_t)(key_length << 8) | digest;
    state->digest = digest;
    if (key_length > 0) {
        memcpy(state->block, key, key_length);
        state->filled = BLOCK;
    }
}

void blake2s_update(struct blake2s *state, const void *data, size_t length)
{
    const uint8_t *from = data;
    while (length > 0) {
        if (state->filled == BLOCK) {
            state->count += BLOCK;
            compress(state, false);
            state->filled = 0;
        }
        const uint8_t room = (uint8_t)(BLOCK - state->filled);
        const uint8_t take = (uint8_t)(length < room ? length : room);
        memcpy((uint8_t *)state->block + state->filled, from, take);
        state->filled = (uint8_t)(state->filled + take);
        from += take;
        length -= take;
    }
}

void blake2s_final(struct blake2s *state, uint8_t *out)
{
    state->count += state->filled;
    memset((uint8_t *)state->block + state->filled, 0, BLOCK - state->filled);
    compress(state, true);
    memcpy(out, state->chain, state->digest);
}

bool blake2s_equal(const uint8_t *one, const uint8_t *other, uint8_t length)
{
    volatile uint8_t different = 0; /* so that no compiler may stop at the first difference */
    for (uint8_t i = 0; i < length; i++) {
        different = (uint8_t)(different | (one[i] ^ other[i]));
    }
    return different == 0;
}
