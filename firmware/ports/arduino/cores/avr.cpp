/* Arduino's core for AVR: UARTs.
 *
 * AVR has neither a serial number nor a source of randomness, but EEPROM that outlives power: bytes 0-3 count boots,
 * bytes 4-11 are the board's id. Counting wears one cell by one write a boot, and Atmel promises 100,000. A board
 * without an id takes one from the time, in microseconds, at which a host first asked. Power lost while the counter
 * is written may bring back a number of long ago, but not the last one. */
#ifdef ARDUINO_ARCH_AVR
#include "ports/arduino/arduino_port.h"

#include <avr/eeprom.h>
#include <avr/sleep.h>

#define BOOTS ((uint32_t *)0)
#define IDENTITY ((uint8_t *)4)
#define ERASED UINT32_MAX

void core_start()
{
    eeprom_update_dword(BOOTS, eeprom_read_dword(BOOTS) + 1);
}

uint32_t core_boot_id()
{
    return eeprom_read_dword(BOOTS);
}

void core_identity(uint8_t id[8])
{
    uint32_t *words = (uint32_t *)IDENTITY;
    if (eeprom_read_dword(words) == ERASED) {
        const uint32_t now = (uint32_t)micros();
        eeprom_update_dword(words + 1, hash32(~now));
        eeprom_update_dword(words, hash32(now) & ~UINT32_C(1)); /* last: without it the id is not there */
    }
    eeprom_read_block(id, IDENTITY, 8);
}

void core_open(uint32_t rate)
{
    Serial.begin(rate);
}

/* The UART divides the clock by 8 times a whole number; 1,000,000 it could do, but the interrupts could not. */
bool core_supports(uint32_t rate)
{
    return F_CPU / 8UL % rate == 0;
}

void core_breathe()
{
    yield();
}

void core_idle()
{
    /* Interrupts stay off between looking and sleeping: a byte that comes in between wakes at once. */
    noInterrupts();
    if (Serial.available() == 0) {
        set_sleep_mode(SLEEP_MODE_IDLE); /* the UART and the clock go on */
        sleep_enable();
        interrupts();
        sleep_cpu();
        sleep_disable();
    }
    interrupts();
    yield();
}

#endif
