/* A small node for tests of the link: it takes a blob and offers it again. Everything on the wire is the firmware's. */
#include "node/arrival.h"
#include "node/wire.h"

#define BLOB_MAX 400000UL
#define OUT_MAX 65536UL

struct peer {
    struct link_decoder decoder;
    struct arrival arrival;
    struct link_outgoing out;
    uint8_t blob[BLOB_MAX];
    uint32_t size;
    bool taken;
    uint8_t sending[OUT_MAX];
    uint32_t queued;
    uint32_t violations; /* chunks that would have been written outside the blob */
};

uint32_t peer_bytes(void) { return sizeof(struct peer); }
uint32_t peer_mtu(void) { return LINK_MTU; }
uint32_t peer_window(void) { return LINK_WINDOW; }

void peer_reset(struct peer *p)
{
    memset(p, 0, sizeof *p);
    link_decoder_reset(&p->decoder);
}

static void send(struct peer *p, uint8_t type, uint8_t id, uint16_t chunk, const uint8_t *payload, uint8_t length)
{
    if (p->queued + LINK_FRAME_MAX <= OUT_MAX) {
        uint8_t *frame = p->sending + p->queued;
        memcpy(frame + LINK_PAYLOAD_AT, payload, length);
        p->queued += link_encode(frame, type, id, chunk, length);
    }
}

/* What arrival.c calls. */
static struct peer *answering;

void wire_error(uint8_t transfer, uint8_t code, uint32_t detail)
{
    uint8_t payload[MESSAGE_ERROR_SIZE];
    const struct message_error error = {code, detail};
    send(answering, FRAME_ERROR, transfer, 0, payload, message_error_write(payload, &error));
}

void wire_acknowledge(const struct link_incoming *in, uint8_t early)
{
    uint8_t payload[MESSAGE_ACK_SIZE];
    const struct message_ack ack = {in->map, early};
    send(answering, FRAME_ACK, in->id, in->next, payload, message_ack_write(payload, &ack));
}

static void send_status(struct peer *p, uint8_t id)
{
    uint8_t payload[MESSAGE_STATUS_SIZE];
    const struct message_status status = {.state = p->taken ? STATE_LOADED : STATE_READY, .boot = 7,
                                          .rejected = p->decoder.rejected};
    send(p, FRAME_STATUS, id, 0, payload, message_status_write(payload, &status));
}

static void hello(struct peer *p, const struct link_frame *f)
{
    uint8_t payload[MESSAGE_HELLO_SIZE];
    const struct message_hello message = {.protocol = PROTOCOL_VERSION, .mtu = LINK_MTU, .window = LINK_WINDOW,
                                          .encodings = 1, .boot = 7, .uid = "12345678", .batch = 1,
                                          .parameters = BLOB_MAX / 4, .board = "test", .tier = "micro"};
    send(p, FRAME_HELLO, f->transfer, 0, payload, message_hello_write(payload, &message));
}

static void begin(struct peer *p, const struct link_frame *f)
{
    struct message_begin message;
    if (!message_begin_read(f->payload, f->length, &message)) {
        wire_error(f->transfer, ERROR_MALFORMED, f->type);
    } else if (message.size > BLOB_MAX) {
        wire_error(f->transfer, ERROR_WRONG_SIZE, BLOB_MAX);
    } else if (arrival_begin(&p->arrival, f, &message)) {
        p->size = message.size;
        p->taken = false;
        p->out.open = false;
    }
}

static void data(struct peer *p, const struct link_frame *f)
{
    if (arrival_owns(&p->arrival, f->transfer)) {
        arrival_data(&p->arrival, f, p->blob);
    }
}

static void commit(struct peer *p, const struct link_frame *f)
{
    const struct authentication_blob blob = {.bytes = p->blob};
    if (p->taken || arrival_commit(&p->arrival, f, &blob)) {
        p->taken = true;
        send_status(p, f->transfer);
    }
}

static void fetch(struct peer *p, const struct link_frame *f)
{
    struct message_fetch message;
    if (!p->taken || !message_fetch_read(f->payload, f->length, &message)) {
        wire_error(f->transfer, ERROR_WRONG_STATE, STATE_READY);
        return;
    }
    if (!link_outgoing_begin(&p->out, f->transfer, message.payload, p->size, f->chunk)) {
        wire_error(f->transfer, ERROR_WRONG_SIZE, LINK_MTU);
        return;
    }
    uint8_t payload[MESSAGE_OFFER_SIZE];
    const struct message_offer offer = {message.round, message.encoding, p->size, link_crc32(0, p->blob, p->size), 5,
                                        0.25f, 0, {0}};
    send(p, FRAME_OFFER, f->transfer, 0, payload, message_offer_write(payload, &offer));
}

static void acknowledged(struct peer *p, const struct link_frame *f)
{
    struct message_ack message;
    if (p->out.id == f->transfer && message_ack_read(f->payload, f->length, &message)) {
        link_outgoing_acknowledge(&p->out, f->chunk, message.map, message.stalled != 0);
    }
}

static void handle(struct peer *p, const struct link_frame *f)
{
    switch (f->type) {
    case FRAME_HELLO_REQUEST: hello(p, f); break;
    case FRAME_STATUS_REQUEST: send_status(p, f->transfer); break;
    case FRAME_BEGIN: begin(p, f); break;
    case FRAME_DATA: data(p, f); break;
    case FRAME_COMMIT: commit(p, f); break;
    case FRAME_FETCH: fetch(p, f); break;
    case FRAME_ACK: acknowledged(p, f); break;
    default: wire_error(f->transfer, ERROR_UNKNOWN, f->type); break;
    }
}

static uint32_t take(struct peer *p, uint8_t *out)
{
    memcpy(out, p->sending, p->queued);
    const uint32_t queued = p->queued;
    p->queued = 0;
    return queued;
}

/* Feed what arrived; returns how many bytes of answers wait in `out`, which must hold OUT_MAX. */
uint32_t peer_feed(struct peer *p, const uint8_t *bytes, uint32_t length, uint8_t *out)
{
    struct link_frame frame;
    answering = p;
    for (uint32_t i = 0; i < length; i++) {
        if (link_decode(&p->decoder, bytes[i], &frame)) {
            handle(p, &frame);
        }
    }
    return take(p, out);
}

/* The next chunk that it has to send, as above. */
uint32_t peer_send(struct peer *p, uint8_t *out)
{
    uint16_t chunk;
    uint32_t offset;
    uint8_t size;
    if (link_outgoing_next(&p->out, &chunk, &offset, &size)) {
        if (offset + size > p->size) {
            p->violations++;
        } else {
            send(p, FRAME_DATA, p->out.id, chunk, p->blob + offset, size);
        }
    }
    return take(p, out);
}

/* Both, all at once. */
uint32_t peer_exchange(struct peer *p, const uint8_t *bytes, uint32_t length, uint8_t *out)
{
    uint32_t count = peer_feed(p, bytes, length, out), more;
    while (count + LINK_FRAME_MAX <= OUT_MAX && (more = peer_send(p, out + count)) > 0) {
        count += more;
    }
    return count;
}

uint32_t peer_violations(const struct peer *p) { return p->violations; }
void peer_damage(struct peer *p, uint32_t at) { p->blob[at] ^= 1U; }
/* Whether these bytes are what it has taken. */
bool peer_holds(const struct peer *p, const uint8_t *bytes, uint32_t length)
{
    return p->taken && p->size == length && memcmp(p->blob, bytes, length) == 0;
}
