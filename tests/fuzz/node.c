/* A whole node under a fuzzer. The input is a sequence of records, so that no checksum stands between the fuzzer and
 * the node:
 *   0..248   a frame with so many bytes of payload: type u8, transfer u8, chunk u16, payload
 *   NOISE    count u8, then so many bytes, as they are
 *   CLOCK    milliseconds u16 that pass
 *   TURNS    count u8: so many times the node may go on by itself
 *   BOOT     it is reset
 *   HOST     the host authenticates, if the node has a key; a COMMIT that ends in 0 is signed from then on
 * After each of them the node is asked how it is, and what it says is held against what it did. */
#include "harness.h"

#include "engine/engine.h"
#include "link/link.h"
#include "model.h"
#include "node/node.h"
#include "node/targets.h"
#include "node/weights.h"
#include "protocol.h"

#include <string.h>

#if NODE_KEYED
#include "keyed.h"
#endif

#define NOISE 249
#define CLOCK 250
#define TURNS 251
#define BOOT 252
#define HOST 253
#define SAMPLES 5
#define ASKING 255 /* the transfer number of our own questions */
#define FROM_NODE 0x80
#define UPDATE_MAX (8UL * MODEL_PARAMETERS + 8)

/* memory_port.c */
void memory_boot(const uint8_t *features, const uint16_t *labels, uint32_t samples, uint32_t feature_count);
void memory_push(const uint8_t *bytes, uint32_t count);
uint32_t memory_pull(uint8_t *out, uint32_t room);
uint32_t memory_waiting(void);
void memory_key(const uint8_t *bytes);
void memory_advance(uint32_t milliseconds);

static struct {
    struct message_status status; /* the last one heard */
    struct message_status before; /* at the last look, if `known`, and the weights then */
    bool known;
    uint8_t held[MODEL_WEIGHT_BYTES];
#if MODEL_PROXY > 0
    uint8_t targets[MODEL_PROXY][MODEL_CLASSES];
#endif
    bool hello;
    int16_t request; /* the transfer number of the request under way (-1: unknown), and the answers to it so far */
    uint32_t answers;
    uint8_t answer;  /* the type of the last one */
    uint8_t payload; /* of the last FETCH */
} seen;

/* The update that the node sends, put together again. */
static struct {
    bool open;
    uint8_t transfer, payload;
    uint32_t size, crc, missing;
    bool here[UPDATE_MAX];
    uint8_t bytes[UPDATE_MAX];
} update;

/* How far the inputs have come altogether, for whoever asks whether they are still of use: a bit for each state, and
 * one for an update that arrived whole. */
static unsigned reached;

/// What the node says ///

static void hear_offer(const struct link_frame *frame)
{
    struct message_offer offer;
    CHECK(message_offer_read(frame->payload, frame->length, &offer));
    CHECK(offer.size <= UPDATE_MAX && seen.status.state == STATE_DONE && offer.round == seen.status.round);
    memset(&update, 0, sizeof update);
    update.open = frame->transfer == seen.request; /* else nobody knows the length of its chunks */
    update.transfer = frame->transfer;
    update.payload = seen.payload;
    update.size = update.missing = offer.size;
    update.crc = offer.crc;
}

static void hear_data(const struct link_frame *frame)
{
    if (!update.open || frame->transfer != update.transfer) {
        return;
    }
    const uint32_t begin = (uint32_t)frame->chunk * update.payload;
    CHECK(begin < update.size && begin + frame->length <= update.size);
    CHECK(frame->length == update.payload || begin + frame->length == update.size);
    for (uint32_t i = 0; i < frame->length; i++) {
        update.missing -= !update.here[begin + i];
        CHECK(!update.here[begin + i] || update.bytes[begin + i] == frame->payload[i]); /* it never changes its mind */
        update.here[begin + i] = true;
        update.bytes[begin + i] = frame->payload[i];
    }
    if (update.missing == 0) {
        CHECK(link_crc32(0, update.bytes, update.size) == update.crc);
        reached |= 1U << (STATE_DONE + 1);
    }
}

static void hear_status(const struct link_frame *frame)
{
    CHECK(message_status_read(frame->payload, frame->length, &seen.status));
    CHECK(seen.status.state <= STATE_DONE && seen.status.done <= seen.status.total);
    CHECK(seen.status.state != STATE_DONE || seen.status.done == seen.status.total);
    CHECK(engine_is_finite(seen.status.loss));
    reached |= 1U << seen.status.state;
}

/* Every frame that a node sends is one that docs/protocol.md knows, of the right length. */
static void hear(const struct link_frame *frame)
{
    struct message_hello hello;
    struct message_error error;
    struct message_ack ack;
    if (frame->transfer == seen.request && frame->type != FRAME_DATA) {
        seen.answers++;
        seen.answer = frame->type;
    }
    switch (frame->type) {
    case FRAME_HELLO:
        CHECK(message_hello_read(frame->payload, frame->length, &hello));
        CHECK(hello.protocol == PROTOCOL_VERSION && hello.mtu == LINK_MTU && hello.parameters == MODEL_PARAMETERS);
        seen.hello = true;
        break;
    case FRAME_LABELS: CHECK(frame->length >= MESSAGE_LABELS_SIZE && frame->length % 2 == 0); break;
    case FRAME_STATUS: hear_status(frame); break;
    case FRAME_OFFER: hear_offer(frame); break;
    case FRAME_DATA: hear_data(frame); break;
#if NODE_KEYED
    case FRAME_PROOF:
        CHECK(frame->length == MESSAGE_PROOF_SIZE);
        memcpy(host.nonces + PROTOCOL_NONCE_BYTES, frame->payload, PROTOCOL_NONCE_BYTES);
        break;
#endif
    case FRAME_ACK: CHECK(message_ack_read(frame->payload, frame->length, &ack)); break;
    default:
        CHECK(frame->type == FRAME_ERROR && message_error_read(frame->payload, frame->length, &error));
        CHECK(error.code >= 1 && error.code <= ERROR_LAST);
    }
}

/* Turn the node once and take what it sent: whole frames, nothing else. */
static bool turn(void)
{
    static struct link_decoder decoder;
    static uint8_t out[4096];
    struct link_frame frame;
    const bool busy = node_poll();
    const uint32_t count = memory_pull(out, sizeof out);
    CHECK(count < sizeof out);
    for (uint32_t i = 0; i < count; i++) {
        const bool whole = link_decode(&decoder, out[i], &frame);
        CHECK(whole == (out[i] == 0));
        if (whole) {
            hear(&frame);
        }
    }
    CHECK(decoder.length == 0 && decoder.rejected == 0);
    return busy;
}

/// What it is told ///

static void push(const uint8_t *bytes, uint32_t count)
{
    memory_push(bytes, count);
    while (memory_waiting() > 0) {
        turn();
    }
}

static void push_frame(uint8_t type, uint8_t transfer, uint16_t chunk, const uint8_t *payload, uint8_t length)
{
    uint8_t wire[256 + LINK_OVERHEAD];
    memcpy(wire + LINK_PAYLOAD_AT, payload, length);
    push(wire, link_encode(wire, type, transfer, chunk, length));
}

static void ask(uint8_t type, const uint8_t *payload, uint8_t length)
{
    static const uint8_t delimiter[1] = {0}; /* as a host begins, to end what noise there is */
    push(delimiter, 1);
    seen.request = ASKING;
    seen.answers = 0;
    push_frame(type, ASKING, 0, payload, length);
    CHECK(seen.answers == 1);
}

#if NODE_KEYED
static void authenticate(void)
{
    uint8_t mac[PROTOCOL_MAC_BYTES];
    host.nonces[0]++;
    ask(FRAME_CHALLENGE, host.nonces, PROTOCOL_NONCE_BYTES);
    CHECK(seen.answer == FRAME_PROOF);
    host_hash("host", mac, sizeof mac);
    ask(FRAME_AUTHENTICATE, mac, sizeof mac);
    CHECK(seen.answer == FRAME_STATUS);
    host_hash("sess", host.session, sizeof host.session);
    host.open = true;
}

/* Without the key nobody begins a round, changes a weight or has weights taken. */
static void check_key(void)
{
    const uint8_t state = seen.status.state;
    CHECK(host.open || (state == STATE_IDLE && memcmp(seen.held, weights_bytes(), MODEL_WEIGHT_BYTES) == 0));
    CHECK(host.committed || state < STATE_LOADED);
    host.committed = host.committed && state >= STATE_LOADED;
}
#endif

/* Weights that are loaded, or trained, stay as they are until the host begins anew. */
static void look(void)
{
    ask(FRAME_STATUS_REQUEST, (const uint8_t *)"", 0);
    const uint8_t state = seen.status.state;
    const bool final = state == STATE_LOADED || state == STATE_DONE;
    if (final && seen.known && seen.before.state == state && seen.before.round == seen.status.round) {
        CHECK(memcmp(seen.held, weights_bytes(), MODEL_WEIGHT_BYTES) == 0);
    }
    CHECK(!final || weights_first_bad() == WEIGHTS_USABLE);
#if MODEL_PROXY > 0
    const bool used = seen.known && seen.before.state >= STATE_TRAINING && state >= STATE_TRAINING;
    CHECK(!used || memcmp(seen.targets, model_targets, sizeof model_targets) == 0);
    memcpy(seen.targets, model_targets, sizeof model_targets);
#endif
#if NODE_KEYED
    check_key();
#endif
    seen.before = seen.status;
    memcpy(seen.held, weights_bytes(), MODEL_WEIGHT_BYTES);
    seen.known = true;
}

static void take_frame(struct input *in, uint8_t length)
{
    const uint8_t type = take_u8(in), transfer = take_u8(in);
    const uint16_t chunk = take_u16(in);
    const uint8_t *payload;
    length = (uint8_t)take_bytes(in, &payload, length);
    struct message_fetch fetch;
    if (type == FRAME_FETCH && message_fetch_read(payload, length, &fetch)) {
        seen.payload = fetch.payload;
    }
#if NODE_KEYED
    uint8_t commit[MESSAGE_COMMIT_SIZE];
    if (type == FRAME_COMMIT && length == sizeof commit && payload[sizeof commit - 1] == 0 && host.open) {
        memcpy(commit, payload, sizeof commit);
        host_sign(commit, targets_owns(transfer));
        payload = commit;
        host.committed = true;
    }
#endif
    seen.request = transfer;
    seen.answers = 0;
    push_frame(type, transfer, chunk, payload, length);
#if NODE_KEYED
    if (type == FRAME_SETUP && seen.answer == FRAME_STATUS) {
        memcpy(host.setup, payload, sizeof host.setup);
    }
#endif
    /* Of a transfer that it does not know, because its BEGIN or FETCH was lost, a node says nothing. */
    const bool part = type == FRAME_DATA || type == FRAME_COMMIT || type == FRAME_ACK;
    const bool request = type < FROM_NODE && !part && length <= LINK_MTU;
    CHECK(!request || seen.answers > 0);
    CHECK(type < FROM_NODE || transfer == 0 || seen.answers == 0); /* an echo that is answered is a storm */
}

static void boot(void)
{
    static const uint8_t features[SAMPLES + MODEL_PROXY][MODEL_FEATURES] = {{1, 2, 3}, {200, 100}, {0}, {255, 255, 255}, {17, 0, 42}};
    static const uint16_t labels[SAMPLES] = {0, 1, 0, 1, 1};
#if NODE_KEYED
    memory_key(host_key);
    host.open = host.committed = false;
#endif
    memory_boot(features[0], labels, SAMPLES, MODEL_FEATURES);
    node_start();
    memcpy(seen.held, weights_bytes(), MODEL_WEIGHT_BYTES);
    memset(&update, 0, sizeof update);
    seen.known = false;
}

static void take_record(struct input *in)
{
    const uint8_t kind = take_u8(in);
    const uint8_t *bytes;
    switch (kind) {
    case NOISE: {
        const size_t count = take_bytes(in, &bytes, take_u8(in));
        seen.request = -1;
        push(bytes, (uint32_t)count);
        break;
    }
    case CLOCK: memory_advance(take_u16(in)); break;
    case TURNS:
        for (uint8_t turns = take_u8(in); turns > 0 && turn(); turns--) {
        }
        break;
    case BOOT: boot(); break;
#if NODE_KEYED
    case HOST: authenticate(); break;
#endif
    default:
        if (kind < NOISE) {
            take_frame(in, kind);
        }
    }
}

static void report(void)
{
    printf("reached %u\n", reached);
}

int LLVMFuzzerInitialize(int *count, char ***arguments)
{
    (void)count;
    (void)arguments;
    return atexit(report);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t version[1] = {PROTOCOL_VERSION};
    struct input in = {data, size};
    memset(&seen, 0, sizeof seen);
    memset(weights_bytes(), 0, MODEL_WEIGHT_BYTES);
    boot();
    while (in.left > 0) {
        take_record(&in);
        look();
    }
    seen.hello = false;
    ask(FRAME_HELLO_REQUEST, version, sizeof version);
    CHECK(seen.hello);
    return 0;
}
