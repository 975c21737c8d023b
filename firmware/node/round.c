#include "round.h"

#include "arrival.h"
#include "authentication.h"
#include "encoding.h"
#include "engine/engine.h"
#include "model.h"
#include "port.h"
#include "protocol.h"
#include "samples.h"
#include "stream.h"
#include "targets.h"
#include "training.h"
#include "weights.h"
#include "wire.h"

#include <string.h>

#define REPORT_MS 500U
#define SUM_BYTES 32 /* at a time: an AVR has them before seven more arrive at 500,000 baud */

static struct {
    struct message_setup setup;
    struct arrival weights;
    struct link_outgoing out;
    uint32_t reported; /* when the last STATUS of training left */
    uint32_t failure;  /* sample at which training stopped, if `failed` */
    uint32_t size, crc; /* of the update, once it is `made` in this `encoding` */
    uint8_t state, encoding;
    bool made;
    bool failed; /* not finite: only another SETUP helps */
} node;

void round_start(void)
{
    memset(&node, 0, sizeof node);
    memset(training_adjustment, 0, sizeof training_adjustment);
    if (MODEL_SOURCE_STREAM) {
        stream_start();
    }
    if (MODEL_PROXY > 0) {
        targets_start();
    }
}

bool round_is_idle(void)
{
    return node.state == STATE_IDLE;
}

/// Replies ///

static void refuse(const struct link_frame *frame, uint8_t code, uint32_t detail)
{
    wire_error(frame->transfer, code, detail);
}

static void malformed(const struct link_frame *frame)
{
    refuse(frame, ERROR_MALFORMED, frame->type);
}

void round_status(uint8_t transfer)
{
    const bool trained = node.state == STATE_TRAINING || node.state == STATE_DONE;
    const struct message_status status = {
        .state = node.state,
        .round = node.setup.round,
        .boot = port_boot_id(),
        .done = trained ? training_done() : 0,
        .total = node.setup.epochs * training_epoch_length(&node.setup),
        .loss = trained ? training_loss() : 0.0f,
        .rejected = wire_rejected(),
        .saturated = trained ? training_saturated() : 0,
    };
    wire_send(FRAME_STATUS, transfer, 0, message_status_write(wire_payload(), &status));
}

/* Is the request about the round under way? If not, says why. */
static bool is_current(const struct link_frame *frame, uint16_t round)
{
    if (node.failed && round == node.setup.round) {
        refuse(frame, ERROR_NOT_FINITE, node.failure);
    } else if (node.state == STATE_IDLE) {
        refuse(frame, ERROR_WRONG_STATE, node.state);
    } else if (round != node.setup.round) {
        refuse(frame, ERROR_WRONG_ROUND, node.setup.round);
    } else {
        return true;
    }
    return false;
}

/// SETUP, ADJUST, ABORT ///

static bool is_usable(const struct link_frame *frame, const struct message_setup *setup)
{
    if (!encoding_is_supported(setup->encoding)) {
        refuse(frame, ERROR_UNSUPPORTED, setup->encoding);
    } else if (setup->batch == 0 || setup->epochs == 0 || setup->learning_rate <= 0.0f) {
        refuse(frame, ERROR_UNSUPPORTED, 0);
    } else if (!engine_is_finite(setup->learning_rate) || !engine_is_finite(setup->momentum) ||
               !engine_is_finite(setup->max_norm)) {
        refuse(frame, ERROR_NOT_FINITE, 0);
    } else {
        return true;
    }
    return false;
}

void round_setup(const struct link_frame *frame)
{
    struct message_setup setup;
    if (!message_setup_read(frame->payload, frame->length, &setup)) {
        malformed(frame);
        return;
    }
    if (!is_usable(frame, &setup)) {
        return;
    }
    uint8_t current[MESSAGE_SETUP_SIZE];
    message_setup_write(current, &node.setup);
    if (node.state == STATE_IDLE || memcmp(current, frame->payload, sizeof current) != 0) {
        round_start();
        node.setup = setup;
        node.state = STATE_READY;
    }
    round_status(frame->transfer);
}

void round_adjust(const struct link_frame *frame)
{
    struct message_adjust adjust;
    const uint8_t count = message_adjust_values_count(frame->length);
    if (!message_adjust_read(frame->payload, frame->length, &adjust) || adjust.first > MODEL_CLASSES ||
        count > MODEL_CLASSES - adjust.first) {
        malformed(frame);
        return;
    }
    bool changes = false;
    for (uint8_t i = 0; i < count; i++) {
        const float value = message_adjust_values_get(frame->payload, i);
        if (!engine_is_finite(value)) {
            refuse(frame, ERROR_NOT_FINITE, (uint32_t)adjust.first + i);
            return;
        }
        changes = changes || training_logit_of(value) != training_adjustment[adjust.first + i];
    }
    /* A repetition is welcome at any time, a change only before training. */
    if (node.state == STATE_IDLE || (changes && node.state > STATE_LOADED)) {
        refuse(frame, ERROR_WRONG_STATE, node.state);
        return;
    }
    for (uint8_t i = 0; i < count; i++) {
        training_adjustment[adjust.first + i] = training_logit_of(message_adjust_values_get(frame->payload, i));
    }
    round_status(frame->transfer);
}

#if MODEL_SOURCE_STREAM
void round_samples(const struct link_frame *frame)
{
    if (stream_expect(frame, node.state, &node.setup)) {
        round_status(frame->transfer);
    }
}
#endif

void round_abort(const struct link_frame *frame)
{
    if (frame->length != MESSAGE_ABORT_SIZE) {
        malformed(frame);
        return;
    }
    round_start();
    round_status(frame->transfer);
}

/// Weights, and soft targets, to the node: BEGIN, DATA, COMMIT ///

void round_begin(const struct link_frame *frame)
{
    struct message_begin begin;
    if (!message_begin_read(frame->payload, frame->length, &begin)) {
        malformed(frame);
        return;
    }
    if (!is_current(frame, begin.round)) {
        return;
    }
    if (MODEL_SOURCE_STREAM) {
        if (begin.kind == TRANSFER_SAMPLE) {
            stream_begin(frame, &begin, node.state);
            return;
        }
        stream_close(); /* two transfers of one number: the later one is meant */
    }
    if (MODEL_PROXY > 0) {
        if (begin.kind == TRANSFER_TARGETS) {
            targets_begin(frame, &begin, node.state);
            return;
        }
        targets_release(frame->transfer);
    }
    if (begin.kind != TRANSFER_WEIGHTS) {
        refuse(frame, ERROR_UNSUPPORTED, begin.kind);
    } else if (begin.size != MODEL_WEIGHT_BYTES) {
        refuse(frame, ERROR_WRONG_SIZE, MODEL_WEIGHT_BYTES);
    } else if (arrival_begin(&node.weights, frame, &begin)) {
        /* The host decides: other weights for this round end what was done with the old ones. */
        node.state = STATE_READY;
        node.out.open = false;
        node.made = false;
        if (MODEL_PROXY > 0) {
            targets_start();
        }
    }
}

void round_data(const struct link_frame *frame)
{
    if (MODEL_SOURCE_STREAM && stream_owns(frame->transfer)) {
        stream_data(frame);
    } else if (MODEL_PROXY > 0 && targets_owns(frame->transfer)) {
        targets_data(frame);
    } else if (arrival_owns(&node.weights, frame->transfer)) {
        arrival_data(&node.weights, frame, weights_bytes());
    } /* else its BEGIN was lost or refused: the host writes DATA right behind it */
}

bool round_sum_some(void)
{
    if (MODEL_PROXY > 0 && node.state == STATE_LOADED) {
        return targets_sum_some(SUM_BYTES);
    }
    return node.state == STATE_READY && arrival_sum(&node.weights, weights_bytes(), SUM_BYTES);
}

void round_commit(const struct link_frame *frame)
{
    struct message_commit commit;
    if (!message_commit_read(frame->payload, frame->length, &commit)) {
        malformed(frame);
        return;
    }
    if (!is_current(frame, commit.round)) {
        return;
    }
    if (MODEL_SOURCE_STREAM && stream_owns(frame->transfer)) {
        if (stream_commit(frame, commit.mac, &node.setup, node.state)) {
            round_status(frame->transfer);
        }
        return;
    }
    if (MODEL_PROXY > 0 && targets_owns(frame->transfer)) {
        if (targets_commit(frame, commit.mac, &node.setup)) {
            round_status(frame->transfer);
        }
        return;
    }
    if (!arrival_owns(&node.weights, frame->transfer)) {
        return; /* its BEGIN was lost: the host will notice */
    }
    if (node.state == STATE_READY) {
        const struct authentication_blob blob = {weights_bytes(), commit.mac, &node.setup, TRANSFER_WEIGHTS};
        if (!arrival_commit(&node.weights, frame, &blob)) {
            return;
        }
        const uint32_t bad = weights_first_bad();
        if (bad != WEIGHTS_USABLE) {
            node.weights.spoiled = true;
            refuse(frame, ERROR_NOT_FINITE, bad);
            return;
        }
#if MODEL_KEEPS_ORIGIN
        memcpy(model_origin, model_weights, MODEL_WEIGHT_BYTES);
#endif
        node.state = STATE_LOADED;
    }
    round_status(frame->transfer);
}

/// Training ///

void round_train(const struct link_frame *frame)
{
    struct message_train train;
    if (!message_train_read(frame->payload, frame->length, &train)) {
        malformed(frame);
        return;
    }
    if (!is_current(frame, train.round)) {
        return;
    }
    if (node.state == STATE_READY) {
        refuse(frame, ERROR_WRONG_STATE, node.state);
        return;
    }
    if (node.state == STATE_LOADED) {
        if (samples_count() == 0) {
            refuse(frame, ERROR_NO_SAMPLES, 0);
            return;
        }
        if (MODEL_PROXY > 0 && node.setup.rehearsals > 0 && !targets_are_here()) {
            refuse(frame, ERROR_NO_TARGETS, 0);
            return;
        }
        training_begin(&node.setup);
        node.state = STATE_TRAINING;
        node.reported = port_milliseconds();
    }
    round_status(frame->transfer);
}

/* Choose the encoding of the update and sum it; false if some of it is not finite. */
static bool make_update(uint8_t encoding)
{
    if (!node.made || encoding != node.encoding) {
        node.encoding = encoding;
        node.made = encoding_begin(encoding, node.setup.seed, &node.size, &node.crc);
    }
    return node.made;
}

static void fail(uint32_t sample)
{
    node.state = STATE_IDLE;
    node.weights.in.open = false;
    node.failed = true;
    node.failure = sample;
    wire_error(0, ERROR_NOT_FINITE, sample);
}

bool round_train_sample(void)
{
    if (node.state != STATE_TRAINING || (MODEL_SOURCE_STREAM && !stream_next())) {
        return false;
    }
    const enum training_result result = training_step();
    if (result == TRAINING_NOT_FINITE || (result == TRAINING_FINISHED && weights_first_bad() != WEIGHTS_USABLE)) {
        fail(training_sample());
        return true;
    }
    if (result == TRAINING_FINISHED) {
        make_update(node.setup.encoding); /* now, while the wire has nothing to wait for */
        node.state = STATE_DONE;
    }
    if (result == TRAINING_FINISHED || port_milliseconds() - node.reported >= REPORT_MS) {
        node.reported = port_milliseconds();
        round_status(0);
    }
    return true;
}

/// The update to the host: FETCH, ACK ///

/* What docs/protocol.md calls `trained`. */
static uint32_t trained_from(void)
{
    const bool rehearsed = MODEL_PROXY > 0 && node.setup.rehearsals > 0;
    return node.weights.in.crc ^ (rehearsed ? targets_crc() : 0);
}

void round_fetch(const struct link_frame *frame)
{
    struct message_fetch fetch;
    if (!message_fetch_read(frame->payload, frame->length, &fetch)) {
        malformed(frame);
        return;
    }
    if (!is_current(frame, fetch.round)) {
        return;
    }
    if (node.state != STATE_DONE) {
        refuse(frame, ERROR_WRONG_STATE, node.state);
        return;
    }
    if (!encoding_is_supported(fetch.encoding)) {
        refuse(frame, ERROR_UNSUPPORTED, fetch.encoding);
        return;
    }
    node.out.open = false;
    if (!make_update(fetch.encoding)) {
        refuse(frame, ERROR_NOT_FINITE, training_sample());
    } else if (!link_outgoing_begin(&node.out, frame->transfer, fetch.payload, node.size, frame->chunk)) {
        refuse(frame, ERROR_WRONG_SIZE, LINK_MTU);
    } else {
        struct message_offer offer = {
            .round = fetch.round,
            .encoding = fetch.encoding,
            .size = node.size,
            .crc = node.crc,
            .samples = samples_count(),
            .loss = training_loss(),
            .saturated = training_saturated(),
        };
        authentication_sign(&offer, &node.setup, trained_from());
        wire_send(FRAME_OFFER, frame->transfer, 0, message_offer_write(wire_payload(), &offer));
    }
}

void round_ack(const struct link_frame *frame)
{
    struct message_ack ack;
    if (!message_ack_read(frame->payload, frame->length, &ack)) {
        malformed(frame);
    } else if (frame->transfer == node.out.id) { /* else its FETCH was lost, or is over */
        link_outgoing_acknowledge(&node.out, frame->chunk, ack.map, ack.stalled != 0);
    }
}

bool round_send_chunk(void)
{
    uint16_t chunk;
    uint32_t offset;
    uint8_t length;
    if (!link_outgoing_next(&node.out, &chunk, &offset, &length)) {
        return false;
    }
    encoding_read(offset, length, wire_payload());
    wire_send(FRAME_DATA, node.out.id, chunk, length);
    return true;
}
