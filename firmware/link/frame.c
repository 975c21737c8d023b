#include "link.h"

#include <string.h>

#if LINK_MTU < 72 || LINK_MTU > 248
#error "LINK_MTU must be 72 (a HELLO) to 248 (one COBS block)"
#endif
#if LINK_WINDOW < 1 || LINK_WINDOW > 16
#error "LINK_WINDOW must be 1 to 16 (the acknowledgement's map)"
#endif

#define HEADER 4
#define CHECK 2

/// Decoding ///

static void start_over(struct link_decoder *decoder)
{
    decoder->length = 0;
    decoder->block = 0;
    decoder->zero_due = false;
    decoder->bad = false;
}

void link_decoder_reset(struct link_decoder *decoder)
{
    memset(decoder, 0, sizeof *decoder);
}

static void push(struct link_decoder *decoder, uint8_t byte)
{
    if (decoder->length == sizeof decoder->buffer) {
        decoder->bad = true;
    } else {
        decoder->buffer[decoder->length++] = byte;
    }
}

/* A delimiter arrived: is what came before it a frame? */
static bool finish(struct link_decoder *decoder, struct link_frame *frame)
{
    const uint8_t *buffer = decoder->buffer;
    const uint8_t length = decoder->length;
    const bool nothing = length == 0 && decoder->block == 0 && !decoder->zero_due && !decoder->bad;
    bool whole = !decoder->bad && decoder->block == 0 && length >= HEADER + CHECK;
    start_over(decoder);
    if (nothing) {
        return false; /* repeated delimiters are how a sender flushes noise out of the wire */
    }
    if (whole) {
        const uint16_t crc = link_crc16(0xFFFF, buffer, (uint16_t)(length - CHECK));
        whole = buffer[length - 2] == (uint8_t)crc && buffer[length - 1] == (uint8_t)(crc >> 8);
    }
    if (!whole) {
        decoder->rejected++;
        return false;
    }
    frame->type = buffer[0];
    frame->transfer = buffer[1];
    frame->chunk = (uint16_t)(buffer[2] | (uint16_t)((uint16_t)buffer[3] << 8));
    frame->payload = buffer + HEADER;
    frame->length = (uint8_t)(length - HEADER - CHECK);
    return true;
}

bool link_decode(struct link_decoder *decoder, uint8_t byte, struct link_frame *frame)
{
    if (byte == 0) {
        return finish(decoder, frame);
    }
    if (decoder->bad) {
        return false;
    }
    if (decoder->block != 0) {
        decoder->block--;
        push(decoder, byte);
        return false;
    }
    if (decoder->zero_due) {
        push(decoder, 0);
    }
    decoder->block = (uint8_t)(byte - 1);
    decoder->zero_due = byte != 0xFF;
    return false;
}

/// Encoding ///

struct stuffer {
    uint8_t *out;
    uint8_t code;   /* where the running block's code byte belongs */
    uint8_t length; /* bytes written, the open code byte included */
};

static void stuff(struct stuffer *s, const uint8_t *data, uint8_t length)
{
    for (uint8_t i = 0; i < length; i++) {
        if (data[i] == 0) {
            s->out[s->code] = (uint8_t)(s->length - s->code);
            s->code = s->length;
        } else {
            s->out[s->length] = data[i];
        }
        s->length++;
    }
}

uint16_t link_encode(uint8_t *out, uint8_t type, uint8_t transfer, uint16_t chunk, const uint8_t *payload,
                     uint8_t length)
{
    const uint8_t header[HEADER] = {type, transfer, (uint8_t)chunk, (uint8_t)(chunk >> 8)};
    const uint16_t crc = link_crc16(link_crc16(0xFFFF, header, HEADER), payload, length);
    const uint8_t check[CHECK] = {(uint8_t)crc, (uint8_t)(crc >> 8)};
    struct stuffer s = {out, 0, 1};
    stuff(&s, header, HEADER);
    stuff(&s, payload, length);
    stuff(&s, check, CHECK);
    /* At most 254 bytes were stuffed, so no block can overflow and the last needs no successor. */
    out[s.code] = (uint8_t)(s.length - s.code);
    out[s.length] = 0;
    return (uint16_t)(s.length + 1);
}
