/* The link under a fuzzer. The first byte chooses: a stream of bytes into the decoder, or a sequence of chunks and
 * acknowledgements into a transfer, each beside a model that is too simple to be wrong. */
#include "harness.h"

#include "link/link.h"

#include <string.h>

#define CHUNKS 300

/* What was accepted is a frame: encoded again, it decodes to the same. */
static void check_again(const struct link_frame *frame)
{
    uint8_t wire[LINK_FRAME_MAX];
    struct link_decoder decoder;
    struct link_frame again;
    CHECK(frame->length <= LINK_MTU);
    memcpy(wire + LINK_PAYLOAD_AT, frame->payload, frame->length);
    const uint16_t length = link_encode(wire, frame->type, frame->transfer, frame->chunk, frame->length);
    CHECK(length == frame->length + LINK_OVERHEAD && memchr(wire, 0, length) == wire + length - 1);
    link_decoder_reset(&decoder);
    for (uint16_t i = 0; i + 1 < length; i++) {
        CHECK(!link_decode(&decoder, wire[i], &again));
    }
    CHECK(link_decode(&decoder, 0, &again));
    CHECK(again.type == frame->type && again.transfer == frame->transfer && again.chunk == frame->chunk &&
          again.length == frame->length && memcmp(again.payload, frame->payload, frame->length) == 0);
}

static void decode(struct input in)
{
    struct link_decoder decoder;
    struct link_frame frame;
    size_t zeros = 0, taken = 0;
    link_decoder_reset(&decoder);
    while (in.left > 0) {
        const uint8_t byte = take_u8(&in);
        zeros += byte == 0;
        if (link_decode(&decoder, byte, &frame)) {
            CHECK(byte == 0);
            taken++;
            check_again(&frame);
        }
    }
    CHECK(taken + decoder.rejected <= zeros); /* a delimiter ends one frame at most, good or bad */
}

static void receive(struct input in)
{
    struct link_incoming state;
    bool here[CHUNKS] = {false};
    const uint8_t payload = take_u8(&in);
    const uint32_t size = take_u16(&in);
    if (!link_incoming_begin(&state, 1, payload, size, 0)) {
        CHECK(payload == 0 || payload > LINK_MTU);
        return;
    }
    const uint32_t count = (size + payload - 1) / payload;
    uint32_t first = 0; /* missing */
    while (in.left > 0 && count <= CHUNKS) {
        const uint16_t chunk = take_u16(&in);
        const uint32_t begin = (uint32_t)chunk * payload;
        const uint32_t right = begin >= size ? 0 : size - begin < payload ? size - begin : payload;
        const uint8_t length = take_u8(&in) & 1 ? (uint8_t)right : take_u8(&in);
        const uint32_t offset = link_incoming_accept(&state, chunk, length);
        CHECK(offset == UINT32_MAX || (offset == begin && chunk < count && length == right && !here[chunk]));
        CHECK(offset != UINT32_MAX || chunk != first || length != right || chunk >= count); /* the next one is wanted */
        if (offset != UINT32_MAX) {
            here[chunk] = true;
        }
        while (first < count && here[first]) {
            first++;
        }
        CHECK(state.next == first && link_incoming_complete(&state) == (first == count));
    }
}

static void send(struct input in)
{
    struct link_outgoing state;
    const uint8_t payload = take_u8(&in);
    const uint32_t size = take_u16(&in);
    if (!link_outgoing_begin(&state, 1, payload, size, 0)) {
        CHECK(payload == 0 || payload > LINK_MTU);
        return;
    }
    const uint32_t count = (size + payload - 1) / payload;
    uint16_t next = 0;
    while (in.left > 0) {
        const uint16_t needed = take_u16(&in), low = take_u16(&in);
        const uint32_t map = low | (uint32_t)take_u16(&in) << 16;
        link_outgoing_acknowledge(&state, needed, map, (take_u8(&in) & 1) != 0);
        CHECK(state.next >= next && state.next <= count && state.next <= state.fresh);
        next = state.next;
        uint16_t chunk;
        uint32_t offset;
        uint8_t length, sent = 0;
        while (link_outgoing_next(&state, &chunk, &offset, &length)) {
            CHECK(++sent <= LINK_WINDOW && chunk >= next && chunk < next + LINK_WINDOW);
            CHECK(offset == (uint32_t)chunk * payload && offset < size && offset + length <= size && length > 0);
            CHECK(length == payload || offset + length == size);
        }
        CHECK(state.fresh <= count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    switch (take_u8(&in) % 3) {
    case 0: decode(in); break;
    case 1: receive(in); break;
    default: send(in); break;
    }
    return 0;
}
