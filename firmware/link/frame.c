#include "link.h"

#include <string.h>

#if LINK_MTU < 72 || LINK_MTU > 248
#error "LINK_MTU must be 72 (a HELLO) to 248 (one COBS block)"
#endif
#if LINK_WINDOW < 1 || LINK_WINDOW > 32
#error "LINK_WINDOW must be 1 to 32 (the acknowledgement's map)"
#endif

#define HEADER 4
#define CHECK 2

/// Decoding ///

void link_decoder_reset(struct link_decoder *decoder)
{
    memset(decoder, 0, sizeof *decoder);
}

/* Undo COBS in place: each code byte but the first becomes the zero it stands for, so what was decoded begins behind the
 * first. False if the last block is longer than what is there. A code of 255 stands for no zero; none but the last of
 * so short a frame can be one. */
static bool unstuff(uint8_t *buffer, uint8_t length)
{
    uint16_t at = 0;
    while (at < length) {
        const uint8_t code = buffer[at];
        buffer[at] = 0;
        at = (uint16_t)(at + code);
    }
    return at == length;
}

/* A delimiter arrived: is what came before it a frame? */
static bool finish(struct link_decoder *decoder, struct link_frame *frame)
{
    const uint8_t *body = decoder->buffer + 1;
    const uint8_t length = decoder->length;
    const bool bad = decoder->bad;
    decoder->length = 0;
    decoder->bad = false;
    if (length == 0) {
        return false; /* repeated delimiters are how a sender flushes noise out of the wire */
    }
    bool whole = !bad && length > HEADER + CHECK && unstuff(decoder->buffer, length);
    if (whole) {
        const uint8_t *check = body + length - 1 - CHECK;
        const uint16_t crc = link_crc16(0xFFFF, body, (uint16_t)(check - body));
        whole = check[0] == (uint8_t)crc && check[1] == (uint8_t)(crc >> 8);
    }
    if (!whole) {
        decoder->rejected++;
        return false;
    }
    frame->type = body[0];
    frame->transfer = body[1];
    frame->chunk = (uint16_t)(body[2] | (uint16_t)((uint16_t)body[3] << 8));
    frame->payload = body + HEADER;
    frame->length = (uint8_t)(length - 1 - HEADER - CHECK);
    return true;
}

bool link_decode(struct link_decoder *decoder, uint8_t byte, struct link_frame *frame)
{
    if (byte == 0) {
        return finish(decoder, frame);
    }
    if (decoder->length == sizeof decoder->buffer) {
        decoder->bad = true;
    } else {
        decoder->buffer[decoder->length++] = byte;
    }
    return false;
}

/// Encoding ///

uint16_t link_encode(uint8_t *out, uint8_t type, uint8_t transfer, uint16_t chunk, uint8_t length)
{
    uint8_t *body = out + 1;
    body[0] = type;
    body[1] = transfer;
    body[2] = (uint8_t)chunk;
    body[3] = (uint8_t)(chunk >> 8);
    uint8_t *check = body + HEADER + length;
    const uint16_t crc = link_crc16(0xFFFF, body, (uint16_t)(check - body));
    check[0] = (uint8_t)crc;
    check[1] = (uint8_t)(crc >> 8);
    /* At most 254 bytes, so no block can overflow and the last needs no successor. */
    uint8_t *const end = check + CHECK;
    uint8_t *code = out; /* where the running block's code byte belongs */
    for (uint8_t *at = body; at != end; at++) {
        if (*at == 0) {
            *code = (uint8_t)(at - code);
            code = at;
        }
    }
    *code = (uint8_t)(end - code);
    *end = 0;
    return (uint16_t)(end + 1 - out);
}
