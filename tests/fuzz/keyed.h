/* The host's end of a key, for a node that has one: what nobody without it can do. */
#ifndef KEYED_H
#define KEYED_H

#include "harness.h"

#include "link/blake2s.h"
#include "node/training.h"
#include "node/weights.h"
#include "protocol.h"

#include <string.h>

static const uint8_t host_key[BLAKE2S_KEY] = "nobody else knows";

static struct {
    bool open;      /* authenticated since the node's last boot */
    bool committed; /* the last COMMIT had the right MAC */
    uint8_t nonces[2 * PROTOCOL_NONCE_BYTES];
    uint8_t session[BLAKE2S_KEY];
    uint8_t setup[MESSAGE_SETUP_SIZE]; /* the last one that the node took */
} host;

static inline void host_hash(const char *label, uint8_t *out, uint8_t digest)
{
    struct blake2s hash;
    blake2s_init(&hash, digest, host_key, sizeof host_key);
    blake2s_update(&hash, label, 4);
    blake2s_update(&hash, host.nonces, sizeof host.nonces);
    blake2s_final(&hash, out);
}

/* The MAC of a COMMIT of the weights, or of soft targets, as they have arrived, for the round in its payload. */
static inline void host_sign(uint8_t *commit, bool targets)
{
    const uint8_t kind = targets ? TRANSFER_TARGETS : TRANSFER_WEIGHTS;
    const uint8_t *bytes = targets ? &model_targets[0][0] : weights_bytes();
    const uint32_t length = targets ? sizeof model_targets : MODEL_WEIGHT_BYTES;
    uint8_t size[4];
    struct blake2s hash;
    protocol_put_u32(size, length);
    blake2s_init(&hash, PROTOCOL_MAC_BYTES, host.session, sizeof host.session);
    blake2s_update(&hash, "down", 4);
    blake2s_update(&hash, &kind, 1);
    blake2s_update(&hash, commit, 2);
    blake2s_update(&hash, size, sizeof size);
    blake2s_update(&hash, host.setup, sizeof host.setup);
    blake2s_update(&hash, training_adjustment, sizeof training_adjustment);
    blake2s_update(&hash, bytes, length);
    blake2s_final(&hash, commit + MESSAGE_COMMIT_SIZE - PROTOCOL_MAC_BYTES);
}

#endif
