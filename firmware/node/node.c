#include "node.h"

#include "authentication.h"
#include "encoding.h"
#include "engine/flash.h"
#include "link/link.h"
#include "model.h"
#include "port.h"
#include "protocol.h"
#include "round.h"
#include "samples.h"
#include "wire.h"

#include <string.h>

#ifndef FIRMWARE_HASH
#error "FIRMWARE_HASH must be defined: the build passes a hash of the firmware's sources"
#endif

#define FROM_NODE 0x80 /* frame types that only a node sends */

void node_start(void)
{
    wire_start();
    authentication_start();
    round_start();
    samples_start();
}

/// Who is there ///

/* An id that the build gives comes before the board's own: its first hexadecimal digits are the first bytes. */
static void identify(uint8_t id[8])
{
#ifdef TIERFED_UID
    for (uint8_t i = 0; i < 8; i++) {
        id[i] = (uint8_t)(UINT64_C(TIERFED_UID) >> (56 - 8 * i));
    }
#else
    port_identity(id);
#endif
}

/* Builds HELLO in the next frame; returns its length. */
static __attribute__((noinline)) uint8_t hello(void)
{
    static const struct message_hello always ENGINE_FLASH = {
        .protocol = PROTOCOL_VERSION,
        .mtu = LINK_MTU,
        .window = LINK_WINDOW,
        .firmware = FIRMWARE_HASH,
        .model = MODEL_HASH,
        .batch = MODEL_ACCUMULATES ? UINT8_MAX : 1,
        .kernel = MODEL_FIXED ? KERNEL_FIXED : KERNEL_F32,
        .source = MODEL_SOURCE_STREAM ? SOURCE_STREAM : MODEL_SOURCE_SENSOR ? SOURCE_SENSOR : SOURCE_FLASH,
        .parameters = MODEL_PARAMETERS,
        .board = MODEL_BOARD,
        .tier = MODEL_TIER,
    };
    struct message_hello hello;
    ENGINE_FLASH_COPY(hello, always);
    hello.encodings = encoding_supported();
    hello.boot = port_boot_id();
    hello.samples = samples_count();
    hello.proxy = samples_proxies();
    identify(hello.uid);
    return message_hello_write(wire_payload(), &hello);
}

/* Counted in the frame itself. */
static void labels(uint8_t transfer, uint16_t first)
{
    const uint16_t room = (LINK_MTU - MESSAGE_LABELS_SIZE) / 2;
    const uint16_t left = first < MODEL_CLASSES ? (uint16_t)(MODEL_CLASSES - first) : 0;
    const uint8_t count = (uint8_t)(left < room ? left : room);
    const struct message_labels header = {first};
    uint8_t *payload = wire_payload();
    const uint8_t length = (uint8_t)(message_labels_write(payload, &header) + 2 * count);
    samples_count_labels(first, count, payload + MESSAGE_LABELS_COUNTS_OFFSET);
    wire_send(FRAME_LABELS, transfer, 0, length);
}

static void baud(uint8_t transfer, uint32_t rate)
{
    if (rate == 0 || !port_baud_supported(rate)) {
        wire_error(transfer, ERROR_UNSUPPORTED, rate);
        return;
    }
    round_status(transfer);
    wire_set_baud(rate);
}

/// Dispatch ///

/* Requests that are no business of the round; false: their length is wrong. */
static bool handle_query(const struct link_frame *frame)
{
    struct message_hello_request hello_request;
    struct message_labels_request labels_request;
    struct message_baud baud_request;
    switch (frame->type) {
    case FRAME_HELLO_REQUEST:
        /* Whatever version the host speaks it gets our HELLO, and says what does not fit. */
        if (!message_hello_request_read(frame->payload, frame->length, &hello_request)) {
            return false;
        }
        wire_send(FRAME_HELLO, frame->transfer, 0, hello());
        return true;
    case FRAME_LABELS_REQUEST:
        if (!message_labels_request_read(frame->payload, frame->length, &labels_request)) {
            return false;
        }
        labels(frame->transfer, labels_request.first);
        return true;
    case FRAME_BAUD:
        if (!message_baud_read(frame->payload, frame->length, &baud_request)) {
            return false;
        }
        baud(frame->transfer, baud_request.rate);
        return true;
    default: /* STATUS_REQUEST */
        if (frame->length != MESSAGE_STATUS_REQUEST_SIZE) {
            return false;
        }
        round_status(frame->transfer);
        return true;
    }
}

/* The two requests that only a node with a key knows; false: it is another one. */
static bool authenticate(const struct link_frame *frame)
{
#if NODE_KEYED
    if (authentication_is_keyed() && frame->type == FRAME_CHALLENGE) {
        hello();
        authentication_challenge(frame);
        return true;
    }
    if (authentication_is_keyed() && frame->type == FRAME_AUTHENTICATE) {
        if (authentication_begin(frame)) {
            round_status(frame->transfer);
        }
        return true;
    }
#endif
    (void)frame;
    return false;
}

/* Kept out of node_poll, whose stack is also below all of training: a HELLO alone is 74 bytes. */
static __attribute__((noinline)) void handle(const struct link_frame *frame)
{
    if (!authentication_admits(frame) || authenticate(frame)) {
        return;
    }
    switch (frame->type) {
    case FRAME_HELLO_REQUEST:
    case FRAME_LABELS_REQUEST:
    case FRAME_STATUS_REQUEST:
    case FRAME_BAUD:
        if (!handle_query(frame)) {
            wire_error(frame->transfer, ERROR_MALFORMED, frame->type);
        }
        break;
    case FRAME_SETUP: round_setup(frame); break;
    case FRAME_ADJUST: round_adjust(frame); break;
#if MODEL_SOURCE_STREAM
    case FRAME_SAMPLES: round_samples(frame); break;
#endif
    case FRAME_BEGIN: round_begin(frame); break;
    case FRAME_DATA: round_data(frame); break;
    case FRAME_COMMIT: round_commit(frame); break;
    case FRAME_TRAIN: round_train(frame); break;
    case FRAME_FETCH: round_fetch(frame); break;
    case FRAME_ACK: round_ack(frame); break;
    case FRAME_ABORT: round_abort(frame); break;
    default:
        /* Our own kind of frame is an echo: an answer would be echoed too, for ever. */
        if (!(frame->type & FROM_NODE)) {
            wire_error(frame->transfer, ERROR_UNKNOWN, frame->type);
        }
    }
}

bool node_poll(void)
{
    struct link_frame frame;
    bool any;
    if (wire_receive(&frame, &any)) {
        handle(&frame);
    }
    wire_tick();
    const bool summed = !any && round_sum_some();
    const bool sent = round_send_chunk();
    const bool trained = round_train_sample();
#if MODEL_SOURCE_SENSOR
    any = (round_is_idle() && samples_capture()) || any;
#endif
    return any || summed || sent || trained;
}
