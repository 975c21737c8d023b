/* The peripherals that nRF52832 and nRF52840 have at the same addresses, as in Nordic's product specifications. */
#include <stddef.h>
#include <string.h>

#include "nrf52_chip.h"
#include "wire.h"

#define FIFO 6U /* bytes that UART0 keeps until they are read */
#define CCS 4U
#define HFXO_CYCLES (64U * 360) /* until the crystal is steady */
#define RNG_CYCLES (64U * 120)  /* a byte, its bias corrected */

/// CLOCK and POWER ///

enum { HFCLKSTARTED = 0, HFCLKRUN = 0x408, HFCLKSTAT = 0x40C, HFCLKSTAT_CRYSTAL = 0x10001 };

static void clock_start(device *own, unsigned task, uint64_t now)
{
    *at(own, HFCLKRUN) = task == 0;
    *at(own, HFCLKSTAT) = 0;
    own->due = task == 0 ? now + HFXO_CYCLES : NEVER;
}

static void clock_run(device *own, uint64_t now)
{
    (void)now;
    *at(own, HFCLKSTAT) = HFCLKSTAT_CRYSTAL;
    own->events |= BIT(HFCLKSTARTED);
    own->due = NEVER;
}

/// UART0 ///

enum { STARTRX = 0, STOPRX = 1, STARTTX = 2, STOPTX = 3, RXDRDY = 2, TXDRDY = 7, ERROR = 9 };
enum { ERRORSRC = 0x480, ENABLE = 0x500, PSELTXD = 0x50C, PSELRXD = 0x514, RXD = 0x518, TXD = 0x51C, BAUDRATE = 0x524 };

static struct {
    bool receives, sends, asleep;
    uint8_t fifo[FIFO], sent;
    unsigned held;
    uint64_t heard, left; /* when to ask the host again, when the byte on its way out is through */
    unsigned long overruns;
} uart;

static bool uart_has(device *own, uint32_t pin)
{
    return *at(own, ENABLE) == 4 && *at(own, pin) >> 31 == 0;
}

/* BAUDRATE counts the 16 MHz / 2^32. */
static uint64_t uart_bit(device *own)
{
    const uint64_t rate = *at(own, BAUDRATE);
    return rate == 0 ? NEVER / 1000 : ((UINT64_C(1) << 34) + rate / 2) / rate;
}

static void uart_start(device *own, unsigned task, uint64_t now)
{
    (void)own, (void)now;
    if (task == STARTRX || task == STOPRX) {
        uart.receives = task == STARTRX;
    } else {
        uart.sends = task == STARTTX;
    }
}

static void uart_receive(device *own, uint64_t now)
{
    int byte;
    uart.heard = wire_receive(now, uart.asleep, uart_bit(own), &byte);
    if (byte < 0 || !uart.receives || !uart_has(own, PSELRXD)) {
        return;
    }
    if (uart.held == FIFO) {
        uart.overruns++;
        *at(own, ERRORSRC) |= 1;
        own->events |= BIT(ERROR);
        return;
    }
    if (uart.held == 0) {
        own->events |= BIT(RXDRDY);
    }
    uart.fifo[uart.held++] = (uint8_t)byte;
}

static void uart_run(device *own, uint64_t now)
{
    if (now >= uart.left) {
        uart.left = NEVER;
        wire_transmit(uart.sent, uart_bit(own));
        own->events |= BIT(TXDRDY);
    }
    if (now >= uart.heard) {
        uart_receive(own, now);
    }
    own->due = uart.heard < uart.left ? uart.heard : uart.left;
}

static void uart_written(device *own, uint32_t offset, uint64_t now)
{
    if (offset == ENABLE && *at(own, ENABLE) == 0) {
        uart.held = 0;
        uart.left = NEVER;
    } else if (offset == ERRORSRC) {
        *at(own, ERRORSRC) = 0; /* ones clear */
    } else if (offset == TXD && uart.sends && uart_has(own, PSELTXD)) {
        if (uart.left != NEVER) {
            wire_fail("UART0: TXD is written while a byte is on its way; expected TXDRDY before");
        }
        uart.sent = (uint8_t)*at(own, TXD);
        uart.left = now + WIRE_BITS_A_BYTE * uart_bit(own);
        own->due = uart.heard < uart.left ? uart.heard : uart.left;
    }
}

/* The next byte comes up as one is taken, with an event of its own. */
static uint32_t uart_read(device *own, uint32_t offset)
{
    if (offset != RXD || uart.held == 0) {
        return *at(own, offset);
    }
    *at(own, RXD) = uart.fifo[0];
    memmove(uart.fifo, uart.fifo + 1, --uart.held);
    if (uart.held > 0) {
        own->events |= BIT(RXDRDY);
    }
    return *at(own, RXD);
}

/// TIMER0 to TIMER2 ///

enum { START = 0, STOP = 1, CLEAR = 3, SHUTDOWN = 4, CAPTURE = 16, COMPARE = 16 };
enum { MODE = 0x504, BITMODE = 0x508, PRESCALER = 0x510, CC = 0x540 };

static struct timer {
    bool running;
    uint64_t zero;      /* the cycle at which it was 0 */
    uint64_t stopped;   /* cycles that it had counted when it stopped */
    uint64_t next[CCS]; /* the cycle at which each CC is reached */
} timers[3];

static struct timer *timer_of(const device *own)
{
    return &timers[(own->base >> 12) - 0x40008];
}

static unsigned timer_shift(device *own)
{
    return 2 + *at(own, PRESCALER) % 16;
}

static uint64_t timer_mask(device *own)
{
    static const uint8_t bits[4] = { 16, 8, 24, 32 };
    return BIT(bits[*at(own, BITMODE) % 4]) - 1;
}

static void timer_plan(device *own, uint64_t now)
{
    struct timer *timer = timer_of(own);
    const uint64_t mask = timer_mask(own), counted = (now - timer->zero) >> timer_shift(own);
    own->due = NEVER;
    for (unsigned i = 0; timer->running && i < CCS; i++) {
        const uint64_t wait = (*at(own, CC + 4 * i) - counted - 1) & mask; /* a whole turn if it is there now */
        timer->next[i] = timer->zero + ((counted + wait + 1) << timer_shift(own));
        own->due = timer->next[i] < own->due ? timer->next[i] : own->due;
    }
}

static void timer_stop(struct timer *timer, uint64_t now)
{
    timer->stopped = timer->running ? now - timer->zero : timer->stopped;
    timer->running = false;
}

static void timer_start(device *own, unsigned task, uint64_t now)
{
    struct timer *timer = timer_of(own);
    if (task == START && !timer->running) {
        if (*at(own, MODE) != 0) {
            wire_fail("TIMER at 0x%08x: MODE is %u; expected 0, counters are not emulated", own->base, *at(own, MODE));
        }
        timer->running = true;
        timer->zero = now - timer->stopped;
    } else if (task == STOP || task == SHUTDOWN) {
        timer_stop(timer, now);
    } else if (task == CLEAR) {
        timer->zero = now;
        timer->stopped = 0;
    } else if (task >= CAPTURE) {
        const uint64_t cycles = timer->running ? now - timer->zero : timer->stopped;
        *at(own, CC + 4 * (task - CAPTURE)) = (uint32_t)(cycles >> timer_shift(own) & timer_mask(own));
    }
    timer_plan(own, now);
}

static void timer_run(device *own, uint64_t now)
{
    struct timer *timer = timer_of(own);
    while (own->due <= now) {
        const uint64_t when = own->due;
        for (unsigned i = 0; i < CCS; i++) {
            if (timer->next[i] != when) {
                continue;
            }
            own->events |= BIT(COMPARE + i);
            if (*at(own, SHORTS) & BIT(i)) {
                timer->zero = when;
            }
            if (*at(own, SHORTS) & BIT(8 + i)) {
                timer_stop(timer, when);
            }
        }
        timer_plan(own, when);
    }
}

static void timer_written(device *own, uint32_t offset, uint64_t now)
{
    (void)offset;
    timer_plan(own, now);
}

/// RNG ///

enum { VALRDY = 0, VALRDY_STOP = 1, VALUE = 0x508 };

static void rng_start(device *own, unsigned task, uint64_t now)
{
    own->due = task == START ? now + RNG_CYCLES : NEVER;
}

static void rng_run(device *own, uint64_t now)
{
    uint8_t drawn;
    wire_random(&drawn, 1);
    *at(own, VALUE) = drawn;
    own->events |= BIT(VALRDY);
    own->due = (*at(own, SHORTS) & VALRDY_STOP) != 0 ? NEVER : now + RNG_CYCLES;
}

/// GPIO: nothing is connected ///

enum { OUT = 0x504, OUTSET = 0x508, OUTCLR = 0x50C, DIR = 0x514, DIRSET = 0x518, DIRCLR = 0x51C, PORT1 = 0x300 };

static void gpio_written(device *own, uint32_t offset, uint64_t now)
{
    (void)now;
    const uint32_t port = offset >= PORT1 + OUT ? PORT1 : 0;
    const uint32_t bits = *at(own, offset);
    switch (offset - port) {
    case OUTSET: *at(own, OUT + port) |= bits; break;
    case OUTCLR: *at(own, OUT + port) &= ~bits; break;
    case DIRSET: *at(own, DIR + port) |= bits; break;
    case DIRCLR: *at(own, DIR + port) &= ~bits; break;
    default: break;
    }
}

/// All of them ///

#define TIMER(base_, irq_)                                                                                             \
    {                                                                                                                  \
        .base = (base_), .irq = (irq_), .tasks = 0xF001B, .known_events = 0xF0000,                                     \
        .registers = { { SHORTS, SHORTS }, { INTENSET, INTENCLR }, { MODE, BITMODE }, { PRESCALER, PRESCALER },        \
                       { CC, CC + 4 * CCS - 4 } },                                                                     \
        .start = timer_start, .run = timer_run, .written = timer_written,                                              \
    }

/* 0x558: what keeps the debug port open. 0xEE4: erratum 108. */
device devices[] = {
    { .base = 0x40000000, .irq = 0, .tasks = 3, .known_events = 1,
      .registers = { { INTENSET, INTENCLR }, { HFCLKRUN, HFCLKSTAT }, { 0x558, 0x558 }, { 0xEE4, 0xEE4 } },
      .start = clock_start, .run = clock_run },
    { .base = 0x40002000, .irq = UART_IRQ, .tasks = 0xF, .known_events = BIT(RXDRDY) | BIT(TXDRDY) | BIT(ERROR),
      .registers = { { INTEN, INTENCLR }, { ERRORSRC, ERRORSRC }, { ENABLE, ENABLE }, { 0x508, TXD },
                     { BAUDRATE, BAUDRATE }, { 0x56C, 0x56C } },
      .start = uart_start, .run = uart_run, .written = uart_written, .read = uart_read },
    TIMER(0x40008000, TIMER_IRQ),
    TIMER(0x40009000, TIMER_IRQ + 1),
    TIMER(0x4000A000, TIMER_IRQ + 2),
    { .base = 0x4000D000, .irq = RNG_IRQ, .tasks = 3, .known_events = 1,
      .registers = { { SHORTS, SHORTS }, { INTENSET, INTENCLR }, { 0x504, VALUE } },
      .start = rng_start, .run = rng_run },
    { .base = 0x50000000,
      .registers = { { OUT, 0x524 }, { 0x700, 0x77C }, { PORT1 + OUT, PORT1 + 0x524 }, { 0xA00, 0xA3C } },
      .written = gpio_written },
};

const unsigned DEVICES = sizeof devices / sizeof *devices;
static device *const uart0 = &devices[1];

void uart_listen(void)
{
    uart.heard = uart0->due = 0;
}

void uart_rests(bool asleep)
{
    uart.asleep = asleep;
}

unsigned long uart_overruns(void)
{
    return uart.overruns;
}

void peripherals_reset(void)
{
    memset(timers, 0, sizeof timers);
    uart.receives = uart.sends = false;
    uart.held = 0;
    uart.left = NEVER;
    *at(uart0, BAUDRATE) = 0x04000000;
    uart0->due = uart.heard; /* the host's line goes on */
}
