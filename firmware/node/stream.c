#include "stream.h"

#include "model.h"
#include "samples.h"
#include "training.h"
#include "wire.h"

#include <string.h>

#if MODEL_SOURCE_STREAM

#define LABEL_AT 4
#define FEATURES_AT 6

static struct {
    struct link_incoming in;
    uint32_t count; /* samples an epoch */
    bool spoiled;   /* complete and wrong: it must begin anew */
    bool waiting;   /* taken, not yet trained */
} stream;

void samples_start(void)
{
    memset(&stream, 0, sizeof stream);
}

uint32_t samples_count(void)
{
    return stream.count;
}

const uint8_t *samples_get(uint32_t index, uint16_t *label)
{
    (void)index;
    *label = protocol_get_u16(model_sample + LABEL_AT);
    return model_sample + FEATURES_AT;
}

bool stream_expect(const struct link_frame *frame, uint8_t state, uint8_t epochs)
{
    struct message_samples samples;
    if (!message_samples_read(frame->payload, frame->length, &samples)) {
        wire_error(frame->transfer, ERROR_MALFORMED, frame->type);
        return false;
    }
    if (state == STATE_IDLE || (state > STATE_LOADED && samples.count != stream.count)) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state);
        return false;
    }
    if (samples.count > UINT32_MAX / epochs) {
        wire_error(frame->transfer, ERROR_UNSUPPORTED, 0);
        return false;
    }
    stream.count = samples.count;
    return true;
}

void stream_close(void)
{
    stream.in.open = false;
}

void stream_begin(const struct link_frame *frame, const struct message_begin *begin, uint8_t state)
{
    struct link_incoming *in = &stream.in;
    if (state < STATE_TRAINING) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state);
        return;
    }
    if (begin->size != sizeof model_sample) {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, sizeof model_sample);
        return;
    }
    if (in->open && !stream.spoiled && in->crc == begin->crc && in->payload == begin->payload) {
        in->id = frame->transfer;
    } else if (!link_incoming_begin(in, frame->transfer, begin->payload, begin->size, begin->crc)) {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, LINK_MTU);
        return;
    }
    stream.spoiled = false;
    wire_acknowledge(in);
}

bool stream_owns(uint8_t transfer)
{
    return stream.in.open && stream.in.id == transfer;
}

void stream_data(const struct link_frame *frame)
{
    const uint32_t offset = link_incoming_accept(&stream.in, frame->chunk, frame->length);
    if (offset != UINT32_MAX) {
        memcpy(model_sample + offset, frame->payload, frame->length);
    }
    wire_acknowledge(&stream.in);
}

bool stream_commit(const struct link_frame *frame, uint8_t state)
{
    if (!link_incoming_complete(&stream.in)) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state);
        return false;
    }
    const uint32_t crc = link_crc32(0, model_sample, sizeof model_sample);
    const uint32_t position = protocol_get_u32(model_sample), done = training_done();
    stream.spoiled = crc != stream.in.crc;
    if (stream.spoiled) {
        wire_error(frame->transfer, ERROR_BAD_CRC, crc);
    } else if (done > 0 && position == done - 1) {
        return true;
    } else if (state != STATE_TRAINING || position != done) {
        wire_error(frame->transfer, ERROR_WRONG_POSITION, done);
    } else if (protocol_get_u16(model_sample + LABEL_AT) >= MODEL_CLASSES) {
        wire_error(frame->transfer, ERROR_WRONG_LABEL, MODEL_CLASSES);
    } else {
        stream.waiting = true;
        return true;
    }
    return false;
}

bool stream_next(void)
{
    const bool waiting = stream.waiting;
    stream.waiting = false;
    return waiting;
}

#endif
