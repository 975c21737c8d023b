/* Errata, clock, identity, sleep. */
#include "nrf52.h"

#include "node/port.h"

#include <string.h>

static volatile uint32_t milliseconds;
static uint32_t boot;

/// Errata: those of Nordic's lists that this port meets ///

/* 108, every nRF52832: RAM may lose its contents in sleep unless this value of the factory's is copied. */
static void keep_ram_in_sleep(void)
{
    if (FICR_INFO_PART == FICR_INFO_PART_NRF52832) {
        NRF52_REGISTER(0x40000EE4) = NRF52_REGISTER(0x10000258) & 0x4FU;
    }
}

/* From revision 3 on a chip locks its debug port at every reset, and could not be flashed again, until its program opens
 * it; revisions are told apart as Nordic's own start-up code does. Whoever locked it on purpose has said so in UICR. */
static void let_debugger_in(void)
{
    const uint32_t part = NRF52_REGISTER(0x10000130), revision = NRF52_REGISTER(0x10000134);
    if ((part == 0x06U && revision >= 0x07U) || (part == 0x08U && revision >= 0x05U)) {
        APPROTECT_DISABLE = UICR_APPROTECT;
    }
}

/* 87: a pending interrupt of the FPU, enabled or not, keeps the chip from sleeping; every rounded result asks for one. */
static void forget_fpu_flags(void)
{
    uint32_t status;
    __asm volatile("vmrs %0, fpscr" : "=r"(status));
    __asm volatile("vmsr fpscr, %0" : : "r"(status & ~UINT32_C(0x9F)));
    __asm volatile("vmrs %0, fpscr" : "=r"(status)); /* waits until it is written */
    NVIC_ICPR1 = 1U << (FPU_IRQ - 32);
}

/// Clock ///

/* The crystal, which takes some 400 us to start, makes the UART's rates exact. Without one the RC oscillator goes on. */
static void start_crystal(void)
{
    CLOCK_EVENTS_HFCLKSTARTED = 0;
    CLOCK_TASKS_HFCLKSTART = 1;
    for (uint32_t patience = 100000; patience > 0 && CLOCK_EVENTS_HFCLKSTARTED == 0; patience--) {
    }
}

/* The timer's own 32 bits would wrap after 71 minutes of microseconds, at a number of milliseconds that is not whole: it
 * counts to 1,000 instead, and the interrupt counts on. */
static void start_timer(void)
{
    TIMER0_MODE = TIMER0_MODE_TIMER;
    TIMER0_BITMODE = TIMER0_BITMODE_32;
    TIMER0_PRESCALER = 4; /* 1 MHz */
    TIMER0_CC0 = 1000;
    TIMER0_SHORTS = TIMER0_SHORTS_COMPARE0_CLEAR;
    TIMER0_EVENTS_COMPARE0 = 0;
    TIMER0_INTENSET = TIMER0_INTEN_COMPARE0;
    NVIC_ISER0 = 1U << TIMER0_IRQ;
    TIMER0_TASKS_START = 1;
}

void chip_timer_interrupt(void)
{
    TIMER0_EVENTS_COMPARE0 = 0;
    milliseconds++;
    /* Read back: a write still on its way to the timer when this returns would leave the interrupt pending. */
    (void)TIMER0_EVENTS_COMPARE0;
}

uint32_t port_milliseconds(void)
{
    return milliseconds;
}

/// Identity ///

static uint32_t draw_random(void)
{
    uint32_t drawn = 0;
    RNG_EVENTS_VALRDY = 0;
    RNG_TASKS_START = 1;
    for (uint8_t byte = 0; byte < 4; byte++) {
        while (RNG_EVENTS_VALRDY == 0) {
        }
        RNG_EVENTS_VALRDY = 0;
        drawn = drawn << 8 | (RNG_VALUE & 0xFFU);
    }
    RNG_TASKS_STOP = 1;
    return drawn;
}

uint32_t port_boot_id(void)
{
    return boot;
}

void port_identity(uint8_t id[8])
{
    const uint32_t own[2] = {FICR_DEVICEID0, FICR_DEVICEID1};
    memcpy(id, own, sizeof own);
}

/// Start and sleep ///

void chip_begin(void)
{
    keep_ram_in_sleep();
    let_debugger_in();
    start_crystal();
    start_timer();
    boot = draw_random();
}

/* Interrupts are held back between looking and sleeping: one that comes in between is pending, and ends WFI at once.
 * While bytes leave the chip stays awake: waking takes 3 us, and at 1,000,000 baud the next byte is due in 10. */
void chip_idle(void)
{
    __asm volatile("cpsid i" ::: "memory");
    if (!uart_is_busy()) {
        forget_fpu_flags();
        __asm volatile("dsb\n\twfi" ::: "memory");
    }
    __asm volatile("cpsie i\n\tisb" ::: "memory");
}
