/* Which interrupt is to be served, and the registers that have a say in it. */
#include <stddef.h>
#include <string.h>

#include "nrf52_chip.h"
#include "wire.h"

#define NESTED 16U

enum { VTOR = 0xE000ED08, AIRCR = 0xE000ED0C, SCR = 0xE000ED10, CPACR = 0xE000ED88 };
enum { ISER = 0xE000E100, ICER = 0xE000E180, ISPR = 0xE000E200, ICPR = 0xE000E280, IPR = 0xE000E400 };

static struct {
    uint64_t enabled, pending;
    uint8_t priority[IRQS];
    unsigned active[NESTED], depth; /* interrupts that are being served */
    uint32_t vtor, cpacr, scr;
    bool reset;
} nvic;

void nvic_reset(void)
{
    memset(&nvic, 0, sizeof nvic);
}

bool nvic_wants_reset(void)
{
    return nvic.reset;
}

bool nvic_fpu_is_on(void)
{
    return (nvic.cpacr >> 20 & 3) != 0;
}

uint32_t nvic_vector(unsigned irq)
{
    return nvic.vtor + 4 * (16 + irq);
}

int nvic_wanted(uint64_t asked)
{
    int best = -1;
    unsigned least = nvic.depth == 0 ? 256U : nvic.priority[nvic.active[nvic.depth - 1]];
    for (unsigned i = 0; i < nvic.depth; i++) {
        asked &= ~BIT(nvic.active[i]); /* one that is being served is asked for again only once it has returned */
    }
    nvic.pending |= asked;
    for (uint64_t left = nvic.pending & nvic.enabled; left != 0; left &= left - 1) {
        const unsigned irq = (unsigned)__builtin_ctzll(left);
        if (nvic.priority[irq] < least) {
            best = (int)irq;
            least = nvic.priority[irq];
        }
    }
    return best;
}

unsigned nvic_enter(unsigned irq)
{
    if (nvic.depth == NESTED) {
        wire_fail("interrupt %u comes inside %u others; expected fewer", irq, nvic.depth);
    }
    nvic.pending &= ~BIT(irq);
    nvic.active[nvic.depth] = irq;
    return nvic.depth++;
}

bool nvic_leave(void)
{
    return nvic.depth > 0 && nvic.depth-- > 0;
}

/* Bits of an NVIC register that has one for each interrupt; NULL: none of them. */
static uint64_t *bits_of(uint32_t address, bool *clears)
{
    const uint32_t kind = address & ~0x7FU;
    *clears = kind == ICER || kind == ICPR;
    if ((address & 0x7F) > (IRQS - 1) / 32 * 4) {
        return NULL;
    }
    return kind == ISER || kind == ICER ? &nvic.enabled : kind == ISPR || kind == ICPR ? &nvic.pending : NULL;
}

static uint32_t *system_register(uint32_t address)
{
    return address == VTOR ? &nvic.vtor : address == CPACR ? &nvic.cpacr : address == SCR ? &nvic.scr : NULL;
}

bool nvic_read(uint32_t address, unsigned bytes, uint32_t *value)
{
    bool clears;
    if (address >= IPR && address - IPR + bytes <= IRQS) {
        *value = 0;
        memcpy(value, nvic.priority + (address - IPR), bytes);
        return true;
    }
    const uint64_t *bits = bits_of(address, &clears);
    const uint32_t *own = system_register(address);
    if (bytes != 4 || (bits == NULL && own == NULL)) {
        return false;
    }
    *value = bits != NULL ? (uint32_t)(*bits >> address % 8 * 8) : *own;
    return true;
}

bool nvic_write(uint32_t address, unsigned bytes, uint32_t value)
{
    bool clears;
    uint64_t *bits = bits_of(address, &clears);
    uint32_t *own = system_register(address);
    if (address >= IPR && address - IPR + bytes <= IRQS) {
        memcpy(nvic.priority + (address - IPR), &value, bytes);
    } else if (bytes != 4) {
        return false;
    } else if (bits != NULL) {
        const uint64_t named = (uint64_t)value << address % 8 * 8;
        *bits = clears ? *bits & ~named : *bits | named;
    } else if (own != NULL) {
        *own = value;
    } else if (address == AIRCR && value >> 16 == 0x05FA) {
        nvic.reset |= (value & 4) != 0;
    } else {
        return false;
    }
    return true;
}
