/* Keyed BLAKE2s (RFC 7693), in pieces of any length. */
#ifndef BLAKE2S_H
#define BLAKE2S_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLAKE2S_KEY 32 /* bytes of a key, and of the longest digest */

#define BLAKE2S_STATE 168 /* bytes of a struct blake2s, at most */

/* Wherever it lies, in memory that is something else at other times too. */
struct __attribute__((may_alias)) blake2s {
    uint8_t filled, digest;
    uint32_t count; /* bytes compressed: 4 GB at most */
    uint32_t chain[8];
    uint32_t mixed[16]; /* while a block is compressed; here because an AVR's stack has no room for it */
    uint32_t block[16]; /* of which `filled` bytes wait: one block always does, as the last is compressed differently */
};

/* digest: 1 to 32 bytes; key_length: 0 (no key) to 32. */
void blake2s_init(struct blake2s *state, uint8_t digest, const uint8_t *key, uint8_t key_length);
void blake2s_update(struct blake2s *state, const void *data, size_t length);
void blake2s_final(struct blake2s *state, uint8_t *out);

/* Whether two MACs are the same, in a time that does not tell where they differ. */
bool blake2s_equal(const uint8_t *one, const uint8_t *other, uint8_t length);

#endif
