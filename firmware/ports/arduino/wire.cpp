/* Bytes and their rate: Serial. */
#include "arduino_port.h"

/// Rate ///

bool port_baud_supported(uint32_t baud)
{
    return baud >= LINK_BAUD && baud <= LINK_BAUD_MAX && core_supports(baud);
}

void port_set_baud(uint32_t baud)
{
#if CORE_USB
    (void)baud; /* to close it would take it off the bus */
#else
    Serial.flush();
    Serial.end();
    core_open(baud != 0 ? baud : LINK_BAUD);
#endif
}

/// Bytes ///

#ifdef ARDUINO_ARCH_AVR /* interrupts send and receive, and no host can stop them: nothing to add, and no RAM for it */

int16_t port_read(void)
{
    return (int16_t)Serial.read();
}

void port_write(const uint8_t *data, uint16_t length)
{
    Serial.write(data, length);
}

#else

#define QUEUE_BYTES 256U /* a power of two */

static struct {
    bool deaf;                  /* the host reads nothing: do not wait for it again until it does */
    uint16_t head, tail;
    uint8_t queue[QUEUE_BYTES]; /* came while something was sent: bytes head..tail - 1, modulo its size */
} wire;

int16_t port_read(void)
{
    if (wire.head != wire.tail) {
        return wire.queue[wire.head++ % QUEUE_BYTES];
    }
    return (int16_t)Serial.read();
}

/* A core's own buffer may be 64 bytes, and the host may be waiting for us to take what it sends before it reads. */
static void receive()
{
    while ((uint16_t)(wire.tail - wire.head) < QUEUE_BYTES) {
        const int byte = Serial.read();
        if (byte < 0) {
            break;
        }
        wire.queue[wire.tail++ % QUEUE_BYTES] = (uint8_t)byte;
    }
}

/* False: the rest is lost, as on a wire that nobody listens to. */
static bool put(const uint8_t *data, uint16_t length)
{
    uint32_t since = port_milliseconds();
    while (length > 0) {
        const uint16_t taken = core_put(data, length);
        receive();
        if (taken > 0) {
            data += taken;
            length = (uint16_t)(length - taken);
            wire.deaf = false;
            since = port_milliseconds();
        } else if (wire.deaf || port_milliseconds() - since >= PATIENCE_MS) {
            wire.deaf = true;
            return false;
        } else {
            core_breathe();
        }
    }
    return true;
}

void port_write(const uint8_t *data, uint16_t length)
{
    static const uint8_t delimiter[1] = {0}; /* ends the frame that was cut short */
    if (!wire.deaf || put(delimiter, 1)) {
        put(data, length);
    }
}

#endif
