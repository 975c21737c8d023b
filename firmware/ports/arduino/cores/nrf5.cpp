/* The nRF5 core 0.8.0, for the nRF52 development kits: a UART without flow control, whose write() waits for each
 * byte to leave and whose receive buffer holds 64. */
#ifdef ARDUINO_ARCH_NRF5
#include "ports/arduino/arduino_port.h"

#include "nordic.h"

#define PIECE 16U /* bytes sent before looking for those that came meanwhile */

void core_start() {}

void core_open(uint32_t rate)
{
    Serial.begin(rate);
}

/* begin() rounds up to what the chip has a divider for. */
bool core_supports(uint32_t rate)
{
    return rate == 115200 || rate == 230400 || rate == 250000 || rate == 460800 || rate == 921600 || rate == 1000000;
}

uint16_t core_put(const uint8_t *data, uint16_t length)
{
    return (uint16_t)Serial.write(data, length < PIECE ? length : PIECE);
}

void core_breathe()
{
    yield();
}

void core_idle()
{
    yield();
}

void core_identity(uint8_t id[8])
{
    nordic_identity(id);
}

uint32_t core_boot_id()
{
    return nordic_boot_id();
}

#endif
