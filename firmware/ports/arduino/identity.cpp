/* Who the board is, and which of its boots this is.
 *
 * AVR has neither a serial number nor a source of randomness, but EEPROM that outlives power: bytes 0-3 count boots,
 * bytes 4-11 are the board's id. Counting wears one cell by one write a boot, and Atmel promises 100,000. A board without
 * an id takes one from the time, in microseconds, at which a host first asked; TIERFED_UID compiles one in instead.
 * Power lost while the counter is written may bring back a number of long ago, but not the last one. */
#include "arduino_port.h"

#ifdef __AVR__
#include <avr/eeprom.h>
#endif

#ifdef __AVR__

#define BOOTS ((uint32_t *)0)
#define IDENTITY ((uint8_t *)4)
#define ERASED UINT32_MAX

void arduino_count_boot()
{
    eeprom_update_dword(BOOTS, eeprom_read_dword(BOOTS) + 1);
}

uint32_t port_boot_id(void)
{
    return eeprom_read_dword(BOOTS);
}

#ifndef TIERFED_UID
void port_identity(uint8_t id[8])
{
    uint32_t *words = (uint32_t *)IDENTITY;
    if (eeprom_read_dword(words) == ERASED) {
        const uint32_t now = micros();
        eeprom_update_dword(words + 1, hash32(~now));
        eeprom_update_dword(words, hash32(now) & ~UINT32_C(1)); /* last: without it the id is not there */
    }
    eeprom_read_block(id, IDENTITY, 8);
}
#endif

#else

static uint32_t boot;

void arduino_count_boot() {}

/* Cores without a generator of randomness: the microsecond at which a host first asked differs from boot to boot. */
uint32_t port_boot_id(void)
{
    if (boot == 0) {
#ifdef ARDUINO_ARCH_ESP32
        boot = esp_random() | 1U;
#else
        boot = hash32(micros()) | 1U;
#endif
    }
    return boot;
}

#ifndef TIERFED_UID
void port_identity(uint8_t id[8])
{
#if defined(ARDUINO_ARCH_ESP32)
    const uint64_t own = ESP.getEfuseMac();
#elif defined(NRF_FICR)
    const uint64_t own = (uint64_t)NRF_FICR->DEVICEID[1] << 32 | NRF_FICR->DEVICEID[0];
#else
#error "this core names no id of its chip: give one by -DTIERFED_UID=0x00000000000000a1"
#endif
    memcpy(id, &own, 8);
}
#endif

#endif

#ifdef TIERFED_UID
/* The first hexadecimal digits are the first bytes, as in --uid of the native twin. */
void port_identity(uint8_t id[8])
{
    for (uint8_t i = 0; i < 8; i++) {
        id[i] = (uint8_t)(UINT64_C(TIERFED_UID) >> (56 - 8 * i));
    }
}
#endif
