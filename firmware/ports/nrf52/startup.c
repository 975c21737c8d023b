/* From reset to main, and what becomes of a fault. */
#include "nrf52.h"

#include <stddef.h>

/* Where the linker script (nrf52.ld) puts things; only the addresses mean anything. */
extern uint32_t stack_top[];
extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[];

/* Nobody is there to look at a board that hangs; one that starts again shows a new boot id and gets its work again. */
static __attribute__((noreturn)) void restart(void)
{
    __asm volatile("dsb" ::: "memory");
    SCB_AIRCR = SCB_AIRCR_RESET;
    for (;;) {
    }
}

static __attribute__((noreturn, noinline)) void start(void)
{
    const uint32_t *from = data_load;
    for (uint32_t *to = data_start; to < data_end; to++) {
        *to = *from++;
    }
    for (uint32_t *to = bss_start; to < bss_end; to++) {
        *to = 0;
    }
    main();
    restart();
}

/* The compiler may keep anything in the FPU's registers, so nothing but this runs before it is on. */
__attribute__((noreturn)) void reset(void)
{
    SCB_CPACR |= SCB_CPACR_FPU;
    __asm volatile("dsb\n\tisb" ::: "memory");
    start();
}

struct vectors {
    uint32_t *stack;
    void (*exceptions[15])(void);
    void (*interrupts[48])(void); /* the nRF52832 has the first 39 */
};

/* Eight interrupts that are never enabled. */
#define NONE restart, restart, restart, restart, restart, restart, restart, restart

__attribute__((section(".vectors"), used)) const struct vectors vectors = {
    .stack = stack_top,
    .exceptions = {reset, restart, restart, restart, restart, restart, NULL, NULL, NULL, NULL, restart, restart, NULL,
                   restart, restart},
    .interrupts = {restart, restart, uart_interrupt, restart, restart, restart, restart, restart, chip_timer_interrupt,
                   restart, restart, restart, restart, restart, restart, restart, NONE, NONE, NONE, NONE},
};
