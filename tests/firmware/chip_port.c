/* A port of four functions for a chip without anything around it: whoever runs it fills and empties two buffers. */
#include "node/node.h"
#include "node/port.h"

#include <string.h>

#define ROOM 8192U

uint8_t chip_in[ROOM], chip_out[ROOM];
uint32_t chip_in_count, chip_in_at, chip_out_count, chip_ms;

void chip_start(void);
uint32_t chip_poll(void);

int16_t port_read(void)
{
    return chip_in_at < chip_in_count ? (int16_t)chip_in[chip_in_at++] : (int16_t)-1;
}

void port_write(const uint8_t *data, uint16_t length)
{
    if (length <= ROOM - chip_out_count) {
        memcpy(chip_out + chip_out_count, data, length);
        chip_out_count += length;
    }
}

uint32_t port_milliseconds(void)
{
    return chip_ms;
}

void port_identity(uint8_t id[8])
{
    memcpy(id, "bare c3!", 8);
}

void chip_start(void)
{
    node_start();
}

/* Until it has read everything and a little more, or has nothing to do. */
uint32_t chip_poll(void)
{
    uint32_t turns = 0;
    while (node_poll() && (chip_in_at < chip_in_count || turns < 4)) {
        turns++;
    }
    return turns;
}
