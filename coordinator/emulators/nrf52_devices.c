/* The bus. Peripherals are all alike: a task starts when its register is written, an event's register says that it has
 * happened, and asks for the peripheral's interrupt where INTEN has the bit of the same number. */
#include <stddef.h>
#include <string.h>

#include "nrf52_chip.h"

/* What the factory and the programmer wrote: FICR and UICR. */
static struct {
    uint32_t address, value;
} written[] = {
    { 0x10000010, 4096 },                         /* CODEPAGESIZE, bytes */
    { 0x10000014, 0 },                            /* CODESIZE, pages */
    { 0x10000060, 0 },       { 0x10000064, 0 },   /* DEVICEID */
    { 0x10000100, 0 },                            /* INFO.PART */
    { 0x1000010C, 0 },       { 0x10000110, 0 },   /* INFO.RAM and INFO.FLASH, KB */
    { 0x10000130, 0 },       { 0x10000134, 7 },   /* by which start-up code knows part and revision */
    { 0x10000258, ~0U },                          /* erratum 108 */
    { 0x10001200, ~0U },     { 0x10001204, ~0U }, /* PSELRESET */
    { 0x10001208, ~0U },                          /* APPROTECT */
};

static void write_at_factory(uint32_t address, uint32_t value)
{
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        if (written[i].address == address) {
            written[i].value = value;
        }
    }
}

static device *device_at(uint32_t address)
{
    for (size_t i = 0; i < DEVICES; i++) {
        if (devices[i].base == (address & ~0xFFFU)) {
            return &devices[i];
        }
    }
    return NULL;
}

static bool has(const device *own, uint32_t offset)
{
    if (offset < SHORTS) {
        return ((offset < EVENTS ? own->tasks : own->known_events) >> offset % EVENTS / 4 & 1) != 0;
    }
    for (const range *each = own->registers; each < own->registers + 6; each++) {
        if (offset >= each->from && offset <= each->to) {
            return true;
        }
    }
    return false;
}

/* Which has this register, with all that is due behind it. */
static device *device_with(uint32_t address, uint64_t now)
{
    device *own = device_at(address);
    const uint32_t offset = address & 0xFFF;
    if (own == NULL || offset % 4 != 0 || !has(own, offset)) {
        return NULL;
    }
    if (now >= own->due) {
        own->run(own, now);
    }
    return own;
}

bool devices_read(uint32_t address, uint64_t now, uint32_t *value)
{
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        if (written[i].address == address) {
            *value = written[i].value;
            return true;
        }
    }
    device *own = device_with(address, now);
    const uint32_t offset = address & 0xFFF;
    if (own == NULL) {
        return false;
    }
    if (offset < SHORTS) {
        *value = offset < EVENTS ? 0 : own->events >> (offset - EVENTS) / 4 & 1;
    } else if (offset >= INTEN && offset <= INTENCLR) {
        *value = own->inten;
    } else {
        *value = own->read != NULL ? own->read(own, offset) : *at(own, offset);
    }
    return true;
}

static void set_inten(device *own, uint32_t offset, uint32_t value)
{
    own->inten = offset == INTEN ? value : offset == INTENSET ? own->inten | value : own->inten & ~value;
}

bool devices_write(uint32_t address, uint64_t now, uint32_t value)
{
    device *own = device_with(address, now);
    const uint32_t offset = address & 0xFFF;
    if (own == NULL) {
        return false;
    }
    if (offset < EVENTS) {
        if (value & 1) {
            own->start(own, offset / 4, now);
        }
    } else if (offset < SHORTS) {
        const uint64_t event = BIT((offset - EVENTS) / 4);
        own->events = value != 0 ? own->events | event : own->events & ~event;
    } else if (offset >= INTEN && offset <= INTENCLR) {
        set_inten(own, offset, value);
    } else {
        *at(own, offset) = value;
        if (own->written != NULL) {
            own->written(own, offset, now);
        }
    }
    return true;
}

uint64_t devices_run(uint64_t now, bool asleep)
{
    uint64_t due = NEVER;
    uart_rests(asleep);
    for (size_t i = 0; i < DEVICES; i++) {
        device *own = &devices[i];
        if (now >= own->due) {
            own->run(own, now);
        }
        due = own->due < due ? own->due : due;
    }
    return due;
}

uint64_t devices_interrupts(void)
{
    uint64_t asked = 0;
    for (size_t i = 0; i < DEVICES; i++) {
        asked |= (devices[i].events & devices[i].inten) != 0 ? BIT(devices[i].irq) : 0;
    }
    return asked;
}

/// Power and reset ///

void devices_begin(const uint8_t uid[8], uint32_t part, uint32_t flash_kb, uint32_t ram_kb)
{
    uint32_t id[2];
    memcpy(id, uid, sizeof id); /* on a host with the chip's byte order */
    write_at_factory(0x10000014, flash_kb / 4);
    write_at_factory(0x10000060, id[0]);
    write_at_factory(0x10000064, id[1]);
    write_at_factory(0x10000100, part);
    write_at_factory(0x1000010C, ram_kb);
    write_at_factory(0x10000110, flash_kb);
    write_at_factory(0x10000130, part == 0x52832 ? 6 : 8);
    devices_reset();
}

void devices_reset(void)
{
    for (size_t i = 0; i < DEVICES; i++) {
        device *own = &devices[i];
        own->due = NEVER;
        own->events = 0;
        own->inten = 0;
        memset(own->values, 0, sizeof own->values);
    }
    peripherals_reset();
}
