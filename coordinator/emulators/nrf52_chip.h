/* What the parts of the emulated chip give each other: its core with Unicorn (nrf52.c), its interrupts (nrf52_nvic.c),
 * its image (nrf52_image.c), the bus (nrf52_devices.c) and what hangs on that (nrf52_peripherals.c). Time is in cycles
 * of 64 MHz. */
#ifndef NRF52_CHIP_H
#define NRF52_CHIP_H

#include <stdbool.h>
#include <stdint.h>

#define RAM 0x20000000U
#define IRQS 48U
#define NEVER UINT64_MAX
#define BIT(n) (UINT64_C(1) << (n))

typedef struct {
    uint32_t flash_bytes, ram_bytes;
    uint8_t *flash, *ram;
} memories;

/// The image ///

/* Put an ELF file into the flash; return how many bytes of the RAM it takes. */
uint32_t image_load(const char *path, memories chip);

/// Interrupts ///

void nvic_reset(void);
bool nvic_read(uint32_t address, unsigned bytes, uint32_t *value);
bool nvic_write(uint32_t address, unsigned bytes, uint32_t value);

/* Note which interrupts the peripherals ask for, a bit each; return the one that is to be served now, or would be if
 * PRIMASK did not hold it back. -1: none. */
int nvic_wanted(uint64_t asked);

/* Begin to serve one: return its number inside how many others. End that. */
unsigned nvic_enter(unsigned irq);
bool nvic_leave(void);

bool nvic_fpu_is_on(void);
bool nvic_wants_reset(void);
uint32_t nvic_vector(unsigned irq); /* where its address is */

/// The bus ///

/* `part` as in FICR, memories in KB. */
void devices_begin(const uint8_t uid[8], uint32_t part, uint32_t flash_kb, uint32_t ram_kb);
void devices_reset(void);

/* Let happen what is due; return when there is something to do next. */
uint64_t devices_run(uint64_t now, bool asleep);

uint64_t devices_interrupts(void); /* those asked for, a bit each */

/* Registers of 32 bits. False: there is none, or none that is emulated. */
bool devices_read(uint32_t address, uint64_t now, uint32_t *value);
bool devices_write(uint32_t address, uint64_t now, uint32_t value);

/// What hangs on it ///

enum { UART_IRQ = 2, TIMER_IRQ = 8, RNG_IRQ = 13 };

/* Registers of all; those of single ones are named where they are. */
enum { TASKS = 0x000, EVENTS = 0x100, SHORTS = 0x200, INTEN = 0x300, INTENSET = 0x304, INTENCLR = 0x308 };

typedef struct {
    uint16_t from, to;
} range;

typedef struct device device;
struct device {
    uint32_t base;
    unsigned irq;
    uint64_t tasks, known_events;
    range registers[6]; /* those from SHORTS on that may be read and written; INTENSET's stands for all three */
    void (*start)(device *own, unsigned task, uint64_t now);
    void (*run)(device *own, uint64_t now);                      /* something is due */
    void (*written)(device *own, uint32_t offset, uint64_t now); /* a register has a new value */
    uint32_t (*read)(device *own, uint32_t offset);              /* a register that is more than a memory */
    uint64_t due, events;
    uint32_t inten;
    uint32_t values[0x400]; /* the registers' */
};

extern device devices[];
extern const unsigned DEVICES;

static inline uint32_t *at(device *own, uint32_t offset)
{
    return &own->values[offset / 4];
}

void peripherals_reset(void);

/* The host has something to say, or may have. */
void uart_listen(void);
unsigned long uart_overruns(void);

/* While the chip sleeps, the host is not looked at so often. */
void uart_rests(bool asleep);

#endif
