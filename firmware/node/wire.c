#include "wire.h"

#include "model.h"
#include "port.h"
#include "protocol.h"

#define TRIAL_MS 2000U
#define BYTES_A_POLL 255

/* A frame is built and sent between two samples, when nothing in the arena is needed: it lies there if there is room. */
#if MODEL_ARENA_BYTES >= LINK_FRAME_MAX
#define FRAME ((uint8_t *)(void *)model_arena)
#else
static uint8_t own_frame[LINK_FRAME_MAX];
#define FRAME own_frame
#endif

static struct {
    struct link_decoder decoder;
    uint32_t rate, rate_before; /* 0: as at boot */
    uint32_t since;             /* when the trial of `rate` began */
    bool trial;
} wire;

void wire_start(void)
{
    link_decoder_reset(&wire.decoder);
    wire.rate = 0;
    wire.trial = false;
}

bool wire_receive(struct link_frame *frame, bool *any)
{
    *any = false;
    for (uint8_t budget = BYTES_A_POLL; budget > 0; budget--) {
        const int16_t byte = port_read();
        if (byte < 0) {
            return false;
        }
        *any = true;
        if (link_decode(&wire.decoder, (uint8_t)byte, frame)) {
            wire.trial = false;
            return true;
        }
    }
    return false;
}

uint16_t wire_rejected(void)
{
    return wire.decoder.rejected;
}

uint8_t *wire_payload(void)
{
    return FRAME + LINK_PAYLOAD_AT;
}

void wire_send(uint8_t type, uint8_t transfer, uint16_t chunk, uint8_t length)
{
    port_write(FRAME, link_encode(FRAME, type, transfer, chunk, length));
}

void wire_acknowledge(const struct link_incoming *in, uint8_t early)
{
    const struct message_ack ack = {in->map, early};
    wire_send(FRAME_ACK, in->id, in->next, message_ack_write(wire_payload(), &ack));
}

void wire_error(uint8_t transfer, uint8_t code, uint32_t detail)
{
    const struct message_error error = {code, detail};
    wire_send(FRAME_ERROR, transfer, 0, message_error_write(wire_payload(), &error));
}

void wire_set_baud(uint32_t rate)
{
    if (rate != wire.rate) {
        wire.rate_before = wire.rate;
        wire.rate = rate;
        wire.trial = true;
        port_set_baud(rate);
        wire.since = port_milliseconds();
    }
}

void wire_tick(void)
{
    if (wire.trial && port_milliseconds() - wire.since > TRIAL_MS) {
        wire.trial = false;
        wire.rate = wire.rate_before;
        port_set_baud(wire.rate);
    }
}
