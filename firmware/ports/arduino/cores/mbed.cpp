/* Arduino's core on Mbed OS, 4.5.0, for the Nano 33 BLE. Serial is USB, which an interrupt serves. It neither sends nor
 * receives until a host has raised DTR; its write() waits for as long as the host then reads nothing, and has no
 * availableForWrite() to warn of that. What is below it, _SerialUSB, has send_nb(). */
#ifdef ARDUINO_ARCH_MBED
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

/* A packet at a time: nothing while one is under way. */
uint16_t core_put(const uint8_t *data, uint16_t length)
{
    uint32_t taken = 0;
    _SerialUSB.send_nb(const_cast<uint8_t *>(data), length, &taken);
    return (uint16_t)taken;
}

void core_breathe()
{
    yield();
}

void core_idle()
{
    delay(1); /* sleeps */
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
