/* Arduino's core for Renesas RA, 1.5.3, for the Uno R4 Minima: TinyUSB, which interrupts serve. Its write() waits
 * for as long as a host reads nothing. */
#ifdef ARDUINO_ARCH_RENESAS
#include "ports/arduino/arduino_port.h"

void core_start() {}

void core_open(uint32_t rate)
{
    Serial.begin(rate);
    Serial.dtr(); /* who asks for DTR is not kept from reading and writing while it is low */
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
    yield();
}

void core_idle()
{
    yield();
}

/* The chip's id has 16 bytes, of which no half is promised to differ: FNV-1a over all of them. */
void core_identity(uint8_t id[8])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const uint8_t byte : R_BSP_UniqueIdGet()->unique_id_bytes) {
        hash = (hash ^ byte) * UINT64_C(0x100000001b3);
    }
    memcpy(id, &hash, 8);
}

/* The microsecond at which a host first asked, and memory that start-up code leaves alone: it counts on through a
 * reset, and holds noise after power was lost. */
uint32_t core_boot_id()
{
    static uint32_t boots __attribute__((section(".noinit")));
    static uint32_t boot;
    if (boot == 0) {
        boot = hash32(++boots ^ hash32((uint32_t)micros())) | 1U;
    }
    return boot;
}

#endif
