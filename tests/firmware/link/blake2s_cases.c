/* Hashes what stdin asks for, each part in memory of exactly its size: for AddressSanitizer. */
#include "blake2s.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t *take(size_t length)
{
    uint8_t *bytes = malloc(length > 0 ? length : 1);
    if (fread(bytes, 1, length, stdin) != length) {
        exit(1);
    }
    return bytes;
}

int main(void)
{
    int digest;
    while ((digest = getchar()) != EOF) {
        const int key_length = getchar(), length = getchar(), piece = getchar();
        struct blake2s *state = malloc(sizeof *state);
        uint8_t *key = take((size_t)key_length), *data = take((size_t)length), *out = malloc((size_t)digest);
        blake2s_init(state, (uint8_t)digest, key, (uint8_t)key_length);
        for (int at = 0; at < length; at += piece) {
            blake2s_update(state, data + at, (size_t)(length - at < piece ? length - at : piece));
        }
        blake2s_final(state, out);
        fwrite(out, 1, (size_t)digest, stdout);
        free(state), free(key), free(data), free(out);
    }
    return 0;
}
