/* Answers a byte with the next one; some letters make it do something else. */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define UART0 0x40002000U

static volatile uint8_t ring[256], head, tail;
static volatile float disturbed;
static uint32_t starts; /* nobody clears .bss here */

static void answer(uint8_t byte)
{
    REGISTER(UART0 + 0x11C) = 0;
    REGISTER(UART0 + 0x51C) = byte;
    while (REGISTER(UART0 + 0x11C) == 0) {
    }
}

static void on_uart(void)
{
    REGISTER(UART0 + 0x108) = 0;
    ring[head++] = (uint8_t)REGISTER(UART0 + 0x518);
    disturbed = disturbed * 1.5F + 1.0F / (float)head; /* in registers of the FPU that others use */
}

static uint32_t compute(void)
{
    float a = 0.1F, b = 1.7F, c = 0.0F;
    for (uint32_t i = 0; i < 300000; i++) {
        c = c * 0.99F + a * b;
        a = i % 3 == 0 ? a + b / 7.0F - c : a * 0.5F + 1e-3F;
        b = b - c * 1e-4F;
    }
    const float all = a + b + c;
    uint32_t bits;
    memcpy(&bits, &all, sizeof bits);
    return bits;
}

static __attribute__((noinline)) void dig(void)
{
    uint8_t deep[500];
    memset(deep, 1, sizeof deep);
    __asm volatile("" : : "r"(deep) : "memory"); /* somebody might read it */
}

static void answer_word(uint32_t word)
{
    for (uint32_t i = 0; i < 4; i++) {
        answer((uint8_t)(word >> 8 * i));
    }
}

static void serve(uint8_t byte)
{
    switch (byte) {
    case 'b': for (;;) { }
    case 'd': dig(); break;
    case 'f': answer_word(compute()); return;
    case 'h': /* hears nothing for a millisecond */
        __asm volatile("cpsid i");
        for (volatile uint32_t i = 0; i < 8000; i++) {
        }
        __asm volatile("cpsie i");
        break;
    case 'i': /* which one, and how often it has started */
        answer_word(REGISTER(0x10000060));
        answer_word(REGISTER(0x10000064));
        answer_word(starts);
        return;
    case 'n': return;
    case 'r': REGISTER(0xE000ED0C) = 0x05FA0004; for (;;) { }
    case 'u': REGISTER(0x40010504) = 1; break; /* the watchdog's */
    default: break;
    }
    answer((uint8_t)(byte + 1));
}

static void start(void)
{
    REGISTER(0xE000ED88) |= 0xF00000;
    head = tail = 0;
    starts++;
    REGISTER(UART0 + 0x50C) = 6;
    REGISTER(UART0 + 0x514) = 8;
    REGISTER(UART0 + 0x524) = 0x10000000; /* 1000000 baud */
    REGISTER(UART0 + 0x500) = 4;
    REGISTER(UART0 + 0x304) = 1U << 2;
    REGISTER(UART0) = REGISTER(UART0 + 8) = 1;
    REGISTER(0xE000E100) = 1U << 2;
    for (;;) {
        while (head == tail) {
            __asm volatile("wfe"); /* an interrupt since then has left an event behind */
        }
        serve(ring[tail++]);
    }
}

__attribute__((section(".vectors"), used)) void (*const vectors[16 + 3])(void) = {
    [0] = (void (*)(void))0x20040000, [1] = start, [16 + 2] = on_uart,
};
