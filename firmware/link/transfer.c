#include "link.h"

#include <string.h>

#define CHUNKS_MAX 65535UL
#define MAP_BITS 32

static bool valid(uint8_t payload, uint32_t size)
{
    return payload != 0 && payload <= LINK_MTU && size <= CHUNKS_MAX * payload;
}

/* Bytes of the chunk that starts at `offset` < size. */
static uint8_t chunk_length(uint32_t size, uint8_t payload, uint32_t offset)
{
    const uint32_t left = size - offset;
    return left < payload ? (uint8_t)left : payload;
}

/* Whether chunk `next` lies past the one behind the last, where a whole transfer goes on. */
static bool beyond(uint16_t next, uint8_t payload, uint32_t size)
{
    return next != 0 && (uint32_t)(next - 1U) * payload >= size;
}

/// Receiving ///

bool link_incoming_begin(struct link_incoming *in, uint8_t id, uint8_t payload, uint32_t size, uint32_t crc)
{
    if (!valid(payload, size)) {
        return false;
    }
    memset(in, 0, sizeof *in);
    in->id = id;
    in->payload = payload;
    in->size = size;
    in->crc = crc;
    in->open = true;
    return true;
}

bool link_incoming_resume(struct link_incoming *in, uint8_t id, uint8_t payload)
{
    if (!valid(payload, in->size)) {
        return false;
    }
    in->id = id;
    if (payload != in->payload) {
        const uint32_t here = link_incoming_here(in);
        /* Rounded down, but whole stays whole. */
        in->next = (uint16_t)((here < in->size ? here : here + payload - 1U) / payload);
        in->map = 0;
        in->payload = payload;
    }
    return true;
}

uint32_t link_incoming_accept(struct link_incoming *in, uint16_t chunk, uint8_t length)
{
    const uint32_t offset = (uint32_t)chunk * in->payload;
    if (!in->open || chunk < in->next || offset >= in->size || length != chunk_length(in->size, in->payload, offset)) {
        return UINT32_MAX;
    }
    const uint16_t ahead = (uint16_t)(chunk - in->next);
    if (ahead == 0) {
        bool here;
        do {
            here = (in->map & 1U) != 0;
            in->map >>= 1;
            in->next++;
        } while (here);
        return offset;
    }
    if (ahead > MAP_BITS) {
        return UINT32_MAX;
    }
    const uint32_t bit = UINT32_C(1) << (ahead - 1);
    if (in->map & bit) {
        return UINT32_MAX;
    }
    in->map |= bit;
    return offset;
}

uint32_t link_incoming_here(const struct link_incoming *in)
{
    const uint32_t here = (uint32_t)in->next * in->payload;
    return here < in->size ? here : in->size;
}

bool link_incoming_complete(const struct link_incoming *in)
{
    return in->open && link_incoming_here(in) == in->size;
}

/// Sending ///

bool link_outgoing_begin(struct link_outgoing *out, uint8_t id, uint8_t payload, uint32_t size, uint16_t first)
{
    if (!valid(payload, size) || beyond(first, payload, size)) {
        return false;
    }
    memset(out, 0, sizeof *out);
    out->id = id;
    out->payload = payload;
    out->size = size;
    out->next = out->fresh = first;
    out->open = true;
    return true;
}

/* Serials wrap, so "later" is the shorter way round. Two chunks in flight are never 128 sendings apart: what is sent
 * before the older one is known to be lost is at most all others, twice. */
static bool later(uint8_t a, uint8_t b)
{
    return (uint8_t)(a - b - 1) < 0x7F;
}

/* By as many bits as there are chunks in flight at most, which may be all of them. */
static link_flight shifted(link_flight bits, uint16_t by)
{
    return (link_flight)(by < LINK_WINDOW ? (uint32_t)bits >> by : 0);
}

void link_outgoing_acknowledge(struct link_outgoing *out, uint16_t next, uint32_t map, bool stalled)
{
    if (!out->open || next < out->next || beyond(next, out->payload, out->size)) {
        return;
    }
    if (next > out->fresh) { /* it has them from before: go on from there */
        out->next = out->fresh = next;
        out->due = 0;
        return;
    }
    const uint16_t flight = (uint16_t)(out->fresh - next);
    if (flight == 0 ? map != 0 : map >> (flight - 1) != 0) {
        return; /* only chunks in flight can have arrived */
    }
    const link_flight arrived = (link_flight)(map << 1); /* bit i: chunk next + i has */
    bool any = false;
    uint8_t newest = 0;
    for (uint16_t chunk = out->next; chunk != out->fresh; chunk++) {
        const uint8_t serial = out->sent[chunk % LINK_WINDOW];
        const bool here = chunk < next || ((arrived >> (chunk - next)) & 1U) != 0;
        if (here && (!any || later(serial, newest))) {
            newest = serial;
            any = true;
        }
    }
    out->due = shifted(out->due, (uint16_t)(next - out->next));
    out->next = next;
    for (uint16_t i = 0; i < flight; i++) {
        const link_flight bit = (link_flight)((link_flight)1 << i);
        if (arrived & bit) {
            out->due &= (link_flight)~bit;
        } else if (stalled || (any && later(newest, out->sent[(uint16_t)(next + i) % LINK_WINDOW]))) {
            out->due |= bit;
        }
    }
}

bool link_outgoing_next(struct link_outgoing *out, uint16_t *chunk, uint32_t *offset, uint8_t *length)
{
    if (!out->open) {
        return false;
    }
    uint16_t pick = out->fresh;
    if (out->due != 0) {
        uint8_t i = 0;
        while ((((uint32_t)out->due >> i) & 1U) == 0) {
            i++;
        }
        out->due &= (link_flight)~((link_flight)1 << i);
        pick = (uint16_t)(out->next + i);
    } else if ((uint16_t)(out->fresh - out->next) < LINK_WINDOW && (uint32_t)out->fresh * out->payload < out->size) {
        out->fresh++;
    } else {
        return false;
    }
    out->sent[pick % LINK_WINDOW] = out->serial++;
    *chunk = pick;
    *offset = (uint32_t)pick * out->payload;
    *length = chunk_length(out->size, out->payload, *offset);
    return true;
}
