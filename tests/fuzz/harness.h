/* What the fuzz targets share: an input read piece by piece, and what must hold. */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerInitialize(int *count, char ***arguments);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A violation ends the process, which is how libFuzzer takes notice. */
#define CHECK(holds)                                                                       \
    do {                                                                                   \
        if (!(holds)) {                                                                    \
            fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #holds);     \
            abort();                                                                       \
        }                                                                                  \
    } while (0)

struct input {
    const uint8_t *at;
    size_t left;
};

static inline uint8_t take_u8(struct input *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->at++;
}

static inline uint16_t take_u16(struct input *in)
{
    const uint8_t low = take_u8(in);
    return (uint16_t)(low | take_u8(in) << 8);
}

/* At most `most` bytes; how many there are. */
static inline size_t take_bytes(struct input *in, const uint8_t **bytes, size_t most)
{
    const size_t count = in->left < most ? in->left : most;
    *bytes = in->at;
    in->at += count;
    in->left -= count;
    return count;
}

#endif
