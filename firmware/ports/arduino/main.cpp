/* Arduino's entry points, the clock, and who the board is. */
#include "arduino_port.h"

void setup()
{
    core_start();
    core_open(LINK_BAUD);
    node_start();
}

void loop()
{
    if (node_poll()) {
        core_breathe();
    } else {
        core_idle();
    }
}

uint32_t port_milliseconds(void)
{
    return (uint32_t)millis();
}

uint32_t port_boot_id(void)
{
    return core_boot_id();
}

void port_identity(uint8_t id[8])
{
    core_identity(id);
}
