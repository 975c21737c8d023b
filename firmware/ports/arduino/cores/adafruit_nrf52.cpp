/* Adafruit's core 1.7.0 for the nRF52840: TinyUSB, which a task of higher priority serves. It sends nothing until a
 * host has raised DTR, and its write() waits for as long as the host then reads nothing. */
#ifdef ARDUINO_NRF52_ADAFRUIT
#include "ports/arduino/arduino_port.h"

#include "nordic.h"

void core_start() {}

void core_open(uint32_t rate)
{
    Serial.begin(rate);
}

bool core_supports(uint32_t rate)
{
    (void)rate;
    return true;
}

uint16_t core_put(const uint8_t *data, uint16_t length)
{
    const int room = Serial.availableForWrite();
    length = room < (int)length ? (uint16_t)room : length;
    return (uint16_t)Serial.write(data, length);
}

void core_breathe()
{
    yield(); /* also sends what fills no packet */
}

void core_idle()
{
    delay(1); /* likewise, and lets the chip sleep */
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
