/* Who may use this node, and whether what arrives is the host's and what leaves is the node's: see "Keys" in
 * docs/protocol.md. Without NODE_KEYED nothing of it is compiled; with it a node whose port has no key is open too. */
#ifndef AUTHENTICATION_H
#define AUTHENTICATION_H

#include "link/link.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

#ifndef NODE_KEYED
#define NODE_KEYED 0
#endif

/* A transfer to the node, of the kind that BEGIN said: the bytes that came, the MAC in its COMMIT, its round's SETUP. */
struct authentication_blob {
    const uint8_t *bytes, *mac;
    const struct message_setup *setup;
    uint8_t kind;
};

#if NODE_KEYED

void authentication_start(void);
bool authentication_is_keyed(void);
/* Whether the host may send this request now. False: it has not authenticated, and that is answered. */
bool authentication_admits(const struct link_frame *frame);

/* CHALLENGE, answered; the node's HELLO is what the next frame's payload holds (wire_payload). */
void authentication_challenge(const struct link_frame *frame);
/* AUTHENTICATE. False: refused, and answered. */
bool authentication_begin(const struct link_frame *frame);

/* Whether the bytes are what the host sent; always without a key. Overwrites wire_payload. */
bool authentication_accepts(const struct authentication_blob *blob, uint32_t size);
/* Fill in the MAC of the update on offer; zeros without a key. trained: the CRC-32 of the weights that it was trained
 * from. Overwrites wire_payload. */
void authentication_sign(struct message_offer *offer, const struct message_setup *setup, uint32_t trained);

#else

static inline void authentication_start(void) {}

static inline bool authentication_admits(const struct link_frame *frame)
{
    (void)frame;
    return true;
}

static inline bool authentication_accepts(const struct authentication_blob *blob, uint32_t size)
{
    (void)blob, (void)size;
    return true;
}

static inline void authentication_sign(struct message_offer *offer, const struct message_setup *setup, uint32_t trained)
{
    (void)offer, (void)setup, (void)trained;
}

#endif
#endif
