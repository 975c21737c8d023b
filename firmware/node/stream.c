#include "stream.h"

#include "arrival.h"
#include "model.h"
#include "samples.h"
#include "training.h"
#include "wire.h"

#include <string.h>

#if MODEL_SOURCE_STREAM

#define LABEL_AT 4
#define FEATURES_AT 6

static struct {
    struct arrival sample;
    uint32_t count; /* samples an epoch */
    bool waiting;   /* taken, not yet trained */
} stream;

void stream_start(void)
{
    memset(&stream, 0, sizeof stream);
}

void samples_start(void) {}

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

bool stream_expect(const struct link_frame *frame, uint8_t state, const struct message_setup *setup)
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
    const uint32_t rehearsed = (uint32_t)setup->rehearsals * MODEL_PROXY;
    if (samples.count > UINT32_MAX / setup->epochs - rehearsed) {
        wire_error(frame->transfer, ERROR_UNSUPPORTED, 0);
        return false;
    }
    stream.count = samples.count;
    return true;
}

void stream_close(void)
{
    stream.sample.in.open = false;
}

void stream_begin(const struct link_frame *frame, const struct message_begin *begin, uint8_t state)
{
    if (state < STATE_TRAINING) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state);
    } else if (begin->size != sizeof model_sample) {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, sizeof model_sample);
    } else {
        arrival_begin(&stream.sample, frame, begin);
    }
}

bool stream_owns(uint8_t transfer)
{
    return arrival_owns(&stream.sample, transfer);
}

void stream_data(const struct link_frame *frame)
{
    arrival_data(&stream.sample, frame, model_sample);
}

/* Whether a sample with this label may be the next one: of a proxy image there is none. */
static bool is_due(uint16_t label)
{
    return MODEL_PROXY > 0 && training_rehearses_next() ? label == PROTOCOL_NO_LABEL : label < MODEL_CLASSES;
}

bool stream_commit(const struct link_frame *frame, const uint8_t *mac, const struct message_setup *setup, uint8_t state)
{
    const struct authentication_blob blob = {model_sample, mac, setup, TRANSFER_SAMPLE};
    if (!arrival_commit(&stream.sample, frame, &blob)) {
        return false;
    }
    const uint32_t position = protocol_get_u32(model_sample), done = training_done();
    if (done > 0 && position == done - 1) {
        return true;
    }
    if (state != STATE_TRAINING || position != done) {
        wire_error(frame->transfer, ERROR_WRONG_POSITION, done);
    } else if (!is_due(protocol_get_u16(model_sample + LABEL_AT))) {
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
