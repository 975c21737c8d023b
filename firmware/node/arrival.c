#include "arrival.h"

#include "wire.h"

#include <string.h>

bool arrival_is_of(const struct arrival *arrival, const struct message_begin *begin)
{
    return arrival->in.open && !arrival->spoiled && arrival->in.crc == begin->crc && arrival->in.size == begin->size;
}

bool arrival_begin(struct arrival *arrival, const struct link_frame *frame, const struct message_begin *begin)
{
    struct link_incoming *in = &arrival->in;
    /* The same blob: a host that came back, or one that changes the length of the chunks. */
    const bool same = arrival_is_of(arrival, begin);
    if (!(same ? link_incoming_resume(in, frame->transfer, begin->payload)
               : link_incoming_begin(in, frame->transfer, begin->payload, begin->size, begin->crc))) {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, LINK_MTU);
        return false;
    }
    if (!same) {
        arrival->crc = 0;
        arrival->summed = 0;
        arrival->spoiled = false;
    }
    wire_acknowledge(in, 0);
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
        /* What has been summed stays as it is, or the sum would be of something else: chunks of another length overlap. */
        const size_t skip = arrival->summed > offset ? (size_t)(arrival->summed - offset) : 0;
        if (skip < frame->length) {
            memcpy(bytes + offset + skip, frame->payload + skip, frame->length - skip);
        }
    }
    wire_acknowledge(&arrival->in, 0);
}

bool arrival_sum(struct arrival *arrival, const uint8_t *bytes, size_t most)
{
    const size_t here = (size_t)link_incoming_here(&arrival->in);
    const size_t left = here > arrival->summed ? here - arrival->summed : 0; /* less after other chunks began */
    const size_t count = left < most ? left : most;
    arrival->crc = link_crc32(arrival->crc, bytes + arrival->summed, (uint32_t)count);
    arrival->summed += count;
    return count > 0;
}

bool arrival_commit(struct arrival *arrival, const struct link_frame *frame, const struct authentication_blob *blob)
{
    if (!link_incoming_complete(&arrival->in)) {
        wire_acknowledge(&arrival->in, (uint8_t)frame->chunk);
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
