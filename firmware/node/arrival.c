#include "arrival.h"

#include "wire.h"

#include <string.h>

bool arrival_begin(struct arrival *arrival, const struct link_frame *frame, const struct message_begin *begin)
{
    struct link_incoming *in = &arrival->in;
    const bool same = in->open && !arrival->spoiled && in->crc == begin->crc && in->payload == begin->payload;
    if (same) {
        in->id = frame->transfer; /* perhaps from a host that came back: go on with it */
    } else if (link_incoming_begin(in, frame->transfer, begin->payload, begin->size, begin->crc)) {
        arrival->crc = 0;
        arrival->summed = 0;
        arrival->spoiled = false;
    } else {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, LINK_MTU);
        return false;
    }
    wire_acknowledge(in);
    return !same;
}

bool arrival_owns(const struct arrival *arrival, uint8_t transfer)
{
    return arrival->in.open && arrival->in.id == transfer;
}

void arrival_data(struct arrival *arrival, const struct link_frame *frame, uint8_t *bytes)
{
    const uint32_t offset = link_incoming_accept(&arrival->in, frame->chunk, frame->length);
    if (offset != UINT32_MAX) {
        memcpy(bytes + offset, frame->payload, frame->length);
    }
    wire_acknowledge(&arrival->in);
}

bool arrival_sum(struct arrival *arrival, const uint8_t *bytes, size_t most)
{
    const uint32_t whole = (uint32_t)arrival->in.next * arrival->in.payload;
    const size_t here = (size_t)(whole < arrival->in.size ? whole : arrival->in.size);
    const size_t left = here - arrival->summed;
    const size_t count = left < most ? left : most;
    arrival->crc = link_crc32(arrival->crc, bytes + arrival->summed, (uint32_t)count);
    arrival->summed += count;
    return count > 0;
}

bool arrival_commit(struct arrival *arrival, const struct link_frame *frame, const struct authentication_blob *blob,
                    uint8_t state)
{
    if (!link_incoming_complete(&arrival->in)) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state);
        return false;
    }
    arrival_sum(arrival, blob->bytes, SIZE_MAX);
    arrival->spoiled = true;
    if (arrival->crc != arrival->in.crc) {
        wire_error(frame->transfer, ERROR_BAD_CRC, arrival->crc);
    } else if (!authentication_accepts(blob, arrival->in.size)) {
        wire_error(frame->transfer, ERROR_WRONG_MAC, frame->type);
    } else {
        arrival->spoiled = false;
    }
    return !arrival->spoiled;
}
