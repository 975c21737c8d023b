#include "authentication.h"

#if NODE_KEYED

#include "encoding.h"
#include "link/blake2s.h"
#include "model.h"
#include "port.h"
#include "samples.h"
#include "training.h"
#include "wire.h"

#include <string.h>

#define APART __attribute__((noinline)) /* a stack frame of its own, gone when the next one comes */
#define PIECE 64 /* a block of BLAKE2s; fits the smallest frame */

/* What a MAC is of: four ASCII bytes in front of what is hashed, here as a number, which an AVR keeps out of its RAM. */
#define LABEL(a, b, c, d) ((uint32_t)(a) | (uint32_t)(b) << 8 | (uint32_t)(c) << 16 | (uint32_t)(d) << 24)
#define LABEL_NODE LABEL('n', 'o', 'd', 'e')
#define LABEL_HOST LABEL('h', 'o', 's', 't')
#define LABEL_SESSION LABEL('s', 'e', 's', 's')
#define LABEL_NONCE LABEL('n', 'o', 'n', 'c')
#define LABEL_DOWN LABEL('d', 'o', 'w', 'n')
#define LABEL_UP LABEL('u', 'p', ' ', ' ')

/* One hash at a time. Like a frame it lies in the arena if there is room, behind it: an AVR has no stack for it. */
#define HASH_AT ((LINK_FRAME_MAX + 3) / 4 * 4)
#if MODEL_ARENA_BYTES >= HASH_AT + BLAKE2S_STATE
#define HASH ((struct blake2s *)(void *)((uint8_t *)(void *)model_arena + HASH_AT))
#else
static struct blake2s own_hash;
#define HASH (&own_hash)
#endif

typedef char state_is_as_large_as_said[sizeof(struct blake2s) <= BLAKE2S_STATE ? 1 : -1];

static struct {
    uint8_t nonces[2 * PROTOCOL_NONCE_BYTES]; /* of the last challenge: the host's, then the node's */
    uint8_t session[BLAKE2S_KEY];
    uint32_t challenges; /* so that no nonce comes twice */
    bool keyed, challenged, open;
} state;

void authentication_start(void)
{
    memset(&state, 0, sizeof state);
    uint8_t key[BLAKE2S_KEY];
    state.keyed = port_key(key);
}

bool authentication_is_keyed(void)
{
    return state.keyed;
}

bool authentication_admits(const struct link_frame *frame)
{
    const uint8_t type = frame->type;
    if (!state.keyed || state.open || type < FRAME_SETUP || type > FRAME_SAMPLES || type == FRAME_STATUS_REQUEST) {
        return true;
    }
    wire_error(frame->transfer, ERROR_UNAUTHENTICATED, type);
    return false;
}

/// Challenge and response ///

static APART void take_key(uint8_t digest)
{
    uint8_t key[BLAKE2S_KEY];
    port_key(key);
    blake2s_init(HASH, digest, key, sizeof key);
}

/* With the node's key. */
static void hash_with_key(uint8_t digest, uint32_t label)
{
    take_key(digest);
    blake2s_update(HASH, &label, sizeof label);
}

/* The same of both nonces, and of what else there is. */
static APART void hash_nonces(uint32_t label, const uint8_t *more, uint8_t length, uint8_t *out, uint8_t digest)
{
    hash_with_key(digest, label);
    blake2s_update(HASH, state.nonces, sizeof state.nonces);
    blake2s_update(HASH, more, length);
    blake2s_final(HASH, out);
}

/* No chip here has random numbers: what only the node can compute, of what never comes again, is as good. */
static APART void make_nonce(uint8_t *nonce)
{
    const uint32_t now[3] = {port_boot_id(), port_milliseconds(), ++state.challenges};
    hash_with_key(PROTOCOL_NONCE_BYTES, LABEL_NONCE);
    blake2s_update(HASH, now, sizeof now);
    blake2s_final(HASH, nonce);
}

APART void authentication_challenge(const struct link_frame *frame)
{
    if (frame->length != MESSAGE_CHALLENGE_SIZE) {
        wire_error(frame->transfer, ERROR_MALFORMED, frame->type);
        return;
    }
    /* A repetition gets the same nonce: the host may have heard the first answer or the second. */
    if (!state.challenged || memcmp(state.nonces, frame->payload, PROTOCOL_NONCE_BYTES) != 0) {
        memcpy(state.nonces, frame->payload, PROTOCOL_NONCE_BYTES);
        make_nonce(state.nonces + PROTOCOL_NONCE_BYTES);
        state.challenged = true;
    }
    struct message_proof proof;
    memcpy(proof.nonce, state.nonces + PROTOCOL_NONCE_BYTES, sizeof proof.nonce);
    hash_nonces(LABEL_NODE, wire_payload(), MESSAGE_HELLO_SIZE, proof.mac, sizeof proof.mac);
    wire_send(FRAME_PROOF, frame->transfer, 0, message_proof_write(wire_payload(), &proof));
}

APART bool authentication_begin(const struct link_frame *frame)
{
    uint8_t mac[PROTOCOL_MAC_BYTES];
    if (frame->length != MESSAGE_AUTHENTICATE_SIZE) {
        wire_error(frame->transfer, ERROR_MALFORMED, frame->type);
        return false;
    }
    hash_nonces(LABEL_HOST, NULL, 0, mac, sizeof mac);
    if (!blake2s_equal(mac, frame->payload, sizeof mac) || !state.challenged) {
        wire_error(frame->transfer, ERROR_UNAUTHENTICATED, frame->type);
        return false;
    }
    hash_nonces(LABEL_SESSION, NULL, 0, state.session, sizeof state.session);
    state.open = true;
    return true;
}

/// Transfers ///

static APART void hash_in_session(uint32_t label)
{
    blake2s_init(HASH, PROTOCOL_MAC_BYTES, state.session, sizeof state.session);
    blake2s_update(HASH, &label, sizeof label);
}

static APART void hash_round(const struct message_setup *setup)
{
    blake2s_update(HASH, wire_payload(), message_setup_write(wire_payload(), setup));
    blake2s_update(HASH, training_adjustment, sizeof training_adjustment);
}

APART bool authentication_accepts(const struct authentication_blob *blob, uint32_t size)
{
    if (!state.keyed) {
        return true;
    }
    uint8_t mac[PROTOCOL_MAC_BYTES];
    hash_in_session(LABEL_DOWN);
    blake2s_update(HASH, &blob->kind, sizeof blob->kind);
    blake2s_update(HASH, &blob->setup->round, sizeof blob->setup->round);
    blake2s_update(HASH, &size, sizeof size);
    hash_round(blob->setup);
    blake2s_update(HASH, blob->bytes, (size_t)size);
    blake2s_final(HASH, mac);
    return blake2s_equal(mac, blob->mac, sizeof mac);
}

static APART void hash_labels(void)
{
    uint8_t count;
    for (uint16_t first = 0; first < MODEL_CLASSES; first = (uint16_t)(first + count)) {
        const uint16_t left = (uint16_t)(MODEL_CLASSES - first);
        count = (uint8_t)(left < PIECE / 2 ? left : PIECE / 2);
        samples_count_labels(first, count, wire_payload());
        blake2s_update(HASH, wire_payload(), 2U * count);
    }
}

APART void authentication_sign(struct message_offer *offer, const struct message_setup *setup, uint32_t trained)
{
    if (!state.keyed) {
        return;
    }
    hash_in_session(LABEL_UP);
    hash_round(setup);
    blake2s_update(HASH, &trained, sizeof trained);
    blake2s_update(HASH, wire_payload(), message_offer_write(wire_payload(), offer) - sizeof offer->mac);
    if (!MODEL_SOURCE_STREAM) {
        hash_labels();
    }
    for (uint32_t at = 0; at < offer->size;) {
        const uint32_t left = offer->size - at;
        const uint8_t length = (uint8_t)(left < PIECE ? left : PIECE);
        encoding_read(at, length, wire_payload());
        blake2s_update(HASH, wire_payload(), length);
        at += length;
    }
    blake2s_final(HASH, offer->mac);
}

#endif
