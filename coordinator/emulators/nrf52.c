/* Runs the image of a board with an nRF52832 or an nRF52840 under Unicorn; its UART0 is a pty.
 *
 *   nrf52 IMAGE nrf52832|nrf52840 [--uid HEX16] [--pace]
 *
 * What it prints and how it ends is as in atmega.c; --uid is FICR's DEVICEID. Unicorn runs the instructions, one basic
 * block after the other, and knows no interrupts, no sleep and no time: between two blocks they are seen to here. An
 * instruction takes 25/16 cycles, as the engine's do on average (`python -m benchmarks.engine`: 1.51 to 1.59). Whatever
 * the chip has and this has not ends it with a sentence. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unicorn/unicorn.h>

#include "nrf52_chip.h"
#include "wire.h"

#define HERTZ 64000000U
#define COST 25U   /* of an instruction, in sixteenths of a cycle */
#define RETURNS 8U /* Unicorn's exception when an address is called that ends an interrupt */
#define PAINT 0xA5
#define LENGTH(array) (sizeof(array) / sizeof *(array))

enum { THUMB = 1U << 24, ALIGNED = 1U << 9, IT = 0x0600FC00 }; /* bits of xPSR */
enum { NO_FPU = 0x10, TO_THREAD = 8 };                          /* bits of EXC_RETURN */

typedef enum { AWAKE, UNTIL_INTERRUPT, UNTIL_EVENT } sleep_kind;

/* What a basic block does besides computing, found out when it first runs. */
typedef struct {
    uint16_t bytes, cost; /* in sixteenths of a cycle */
    bool sends_event;
    sleep_kind sleep; /* its last instruction */
} block;

static struct {
    uc_engine *uc;
    memories memories;
    block *blocks;
    uint32_t data_end;  /* bytes into the RAM */
    uint64_t time, due; /* in sixteenths of a cycle */
    uint64_t slept;     /* cycles */
    bool event;
    sleep_kind sleep;
} chip;

static uint64_t now(void)
{
    return chip.time / 16;
}

static uint32_t get(int id)
{
    uint32_t value = 0;
    uc_reg_read(chip.uc, id, &value);
    return value;
}

static void set(int id, uint32_t value)
{
    uc_reg_write(chip.uc, id, &value);
}

static uint8_t *memory(uint32_t address, uint32_t bytes)
{
    const memories *chips = &chip.memories;
    if (address >= RAM && address - RAM <= chips->ram_bytes && bytes <= chips->ram_bytes - (address - RAM)) {
        return chips->ram + (address - RAM);
    }
    if (address <= chips->flash_bytes && bytes <= chips->flash_bytes - address) {
        return chips->flash + address;
    }
    wire_fail("0x%08x is neither in the RAM nor in the flash; pc 0x%08x", address, get(UC_ARM_REG_PC));
}

static uint32_t word(uint32_t address)
{
    uint32_t value;
    memcpy(&value, memory(address, sizeof value), sizeof value);
    return value;
}

static wire_measured measured(void)
{
    const uint32_t top = word(0) - RAM; /* where the stack begins */
    uint32_t lowest = chip.data_end;
    while (lowest < top && chip.memories.ram[lowest] == PAINT) {
        lowest++;
    }
    return (wire_measured){
        .cycles = now(),
        .awake = now() - chip.slept,
        .stack = top - lowest,
        .untouched = lowest - chip.data_end,
        .overruns = uart_overruns(),
    };
}

/// Interrupts ///

/* What an interrupt finds in registers and puts on the stack: first the eight words of a frame, then the FPU's. */
static const int SAVED[] = {
    UC_ARM_REG_R0, UC_ARM_REG_R1, UC_ARM_REG_R2, UC_ARM_REG_R3, UC_ARM_REG_R12, UC_ARM_REG_LR, UC_ARM_REG_PC,
    UC_ARM_REG_XPSR, UC_ARM_REG_S0, UC_ARM_REG_S1, UC_ARM_REG_S2, UC_ARM_REG_S3, UC_ARM_REG_S4, UC_ARM_REG_S5,
    UC_ARM_REG_S6, UC_ARM_REG_S7, UC_ARM_REG_S8, UC_ARM_REG_S9, UC_ARM_REG_S10, UC_ARM_REG_S11, UC_ARM_REG_S12,
    UC_ARM_REG_S13, UC_ARM_REG_S14, UC_ARM_REG_S15, UC_ARM_REG_FPSCR,
};

enum { SHORT_FRAME = 8, LONG_FRAME = 26, PC = 6, XPSR = 7 };

static void enter(unsigned irq, uint32_t pc)
{
    uint32_t frame[LONG_FRAME] = { 0 };
    const uint32_t words = nvic_fpu_is_on() ? LONG_FRAME : SHORT_FRAME, sp = get(UC_ARM_REG_SP);
    for (uint32_t i = 0; i < words && i < LENGTH(SAVED); i++) {
        frame[i] = get(SAVED[i]);
    }
    const uint32_t base = (sp - 4 * words) & ~7U;
    frame[PC] = pc;
    frame[XPSR] = (frame[XPSR] & ~ALIGNED) | THUMB | (sp % 8 != 0 ? ALIGNED : 0);
    memcpy(memory(base, 4 * words), frame, 4 * words);
    set(UC_ARM_REG_SP, base);
    set(UC_ARM_REG_LR, 0xFFFFFFE1 | (words == SHORT_FRAME ? NO_FPU : 0) | (nvic_enter(irq) == 0 ? TO_THREAD : 0));
    chip.event = true;
    set(UC_ARM_REG_PC, word(nvic_vector(irq)));
}

static void leave(uint32_t how)
{
    const uint32_t words = (how & NO_FPU) != 0 ? SHORT_FRAME : LONG_FRAME, base = get(UC_ARM_REG_SP);
    if (!nvic_leave()) {
        wire_fail("a return from an interrupt (to 0x%08x) outside of any", how);
    }
    uint32_t frame[LONG_FRAME];
    memcpy(frame, memory(base, 4 * words), 4 * words);
    for (uint32_t i = 0; i < words && i < LENGTH(SAVED); i++) {
        if (i != PC && (i < SHORT_FRAME || frame[i] != get(SAVED[i]))) {
            set(SAVED[i], frame[i]);
        }
    }
    set(UC_ARM_REG_SP, base + 4 * words + ((frame[XPSR] & ALIGNED) != 0 ? 4 : 0));
    chip.event = true;
    chip.due = 0; /* there may be another one */
    set(UC_ARM_REG_PC, frame[PC] | 1);
}

/// Between two blocks ///

static void start_over(void)
{
    nvic_reset();
    devices_reset();
    chip.event = false;
    chip.sleep = AWAKE;
    chip.due = 0;
    set(UC_ARM_REG_PRIMASK, 0);
    set(UC_ARM_REG_FPSCR, 0);
    set(UC_ARM_REG_LR, ~0U);
    set(UC_ARM_REG_SP, word(0));
    set(UC_ARM_REG_PC, word(4));
}

/* Do what is due and sleep where the program does. Return whether it goes on at `pc`. */
static bool attend(uint32_t pc)
{
    for (;;) {
        if (nvic_wants_reset()) {
            start_over();
            return false;
        }
        if (wire_asked && !wire_answer(measured())) {
            exit(0);
        }
        const uint64_t due = devices_run(now(), chip.sleep != AWAKE);
        const int irq = nvic_wanted(devices_interrupts());
        const bool held = irq >= 0 && (get(UC_ARM_REG_PRIMASK) != 0 || (get(UC_ARM_REG_XPSR) & IT) != 0);
        if (irq >= 0 && !held) {
            chip.sleep = AWAKE;
            enter((unsigned)irq, pc);
            return false;
        }
        if (chip.sleep == UNTIL_EVENT && chip.event) {
            chip.event = false;
            chip.sleep = AWAKE;
        }
        if (chip.sleep == AWAKE || (chip.sleep == UNTIL_INTERRUPT && held)) {
            chip.sleep = AWAKE;
            chip.due = held ? 0 : due * 16;
            return true;
        }
        const uint64_t woken = wire_sleep(now(), due);
        chip.slept += woken - now();
        chip.time = 16 * woken;
        if (woken < due) {
            uart_listen();
        }
    }
}

static uint16_t halfword(uint32_t address)
{
    uint16_t value;
    memcpy(&value, memory(address, sizeof value), sizeof value);
    return value;
}

/* WFE, WFI and SEV, in their short and their long form. */
static void note_hint(block *seen, uint32_t hint)
{
    if (hint == 2 || hint == 3) {
        seen->sleep = hint == 2 ? UNTIL_EVENT : UNTIL_INTERRUPT;
    } else if (hint == 4) {
        seen->sends_event = true;
    }
}

static block learn(uint32_t address, uint32_t bytes)
{
    block seen = { .bytes = (uint16_t)bytes };
    for (uint32_t pc = address; pc < address + bytes; seen.cost += COST) {
        const uint32_t first = halfword(pc);
        if (first >> 11 < 0x1D) {
            pc += 2;
            if ((first & 0xFF0F) == 0xBF00) {
                note_hint(&seen, first >> 4 & 0xF);
            }
            continue;
        }
        const uint32_t second = halfword(pc + 2);
        if (first == 0xF3AF && second >> 8 == 0x80) {
            note_hint(&seen, second & 0xFF);
        }
        if ((first & 0xEC00) == 0xEC00 && (second & 0x0E00) == 0x0A00 && !nvic_fpu_is_on()) {
            wire_fail("pc 0x%08x is an instruction for the FPU, which is off; expected CPACR to turn it on", pc);
        }
        pc += 4;
    }
    return seen;
}

static void on_block(uc_engine *uc, uint64_t address, uint32_t bytes, void *unused)
{
    (void)uc, (void)unused;
    const uint32_t pc = (uint32_t)address;
    if ((chip.time >= chip.due || chip.sleep != AWAKE) && !attend(pc)) {
        return;
    }
    block other, *seen = pc < chip.memories.flash_bytes ? &chip.blocks[pc / 2] : &other;
    if (seen == &other || seen->bytes != bytes) {
        *seen = learn(pc, bytes);
    }
    chip.time += seen->cost;
    chip.event |= seen->sends_event;
    chip.sleep = seen->sleep;
}

/// Registers ///

static uint64_t on_read(uc_engine *uc, uint64_t offset, unsigned size, void *base)
{
    (void)uc;
    const uint32_t address = (uint32_t)offset + (uint32_t)(uintptr_t)base;
    uint32_t value;
    if (!nvic_read(address, size, &value) && (size != 4 || !devices_read(address, now(), &value))) {
        wire_fail("%u bytes are read from 0x%08x, which is not emulated; pc 0x%08x", size, address, get(UC_ARM_REG_PC));
    }
    return value;
}

static void on_write(uc_engine *uc, uint64_t offset, unsigned size, uint64_t written, void *base)
{
    (void)uc;
    const uint32_t address = (uint32_t)offset + (uint32_t)(uintptr_t)base, value = (uint32_t)written;
    chip.due = 0; /* whatever follows from it */
    if (!nvic_write(address, size, value) && (size != 4 || !devices_write(address, now(), value))) {
        wire_fail("%u bytes, 0x%x, are written to 0x%08x, which is not emulated; pc 0x%08x", size, value, address,
                  get(UC_ARM_REG_PC));
    }
}

static bool on_fault(uc_engine *uc, uc_mem_type type, uint64_t address, int size, int64_t value, void *unused)
{
    (void)uc, (void)value, (void)unused;
    const bool fetched = type == UC_MEM_FETCH_UNMAPPED || type == UC_MEM_FETCH_PROT;
    wire_fail("%d bytes are %s 0x%08x, where the chip has nothing that allows it; pc 0x%08x", size,
              fetched                                                     ? "fetched from"
              : type == UC_MEM_READ_UNMAPPED || type == UC_MEM_READ_PROT ? "read from"
                                                                          : "written to",
              (uint32_t)address, get(UC_ARM_REG_PC));
}

static void on_exception(uc_engine *uc, uint32_t number, void *unused)
{
    (void)uc, (void)unused;
    const uint32_t pc = get(UC_ARM_REG_PC);
    if (number != RETURNS) {
        wire_fail("exception %u of the core (2: SVC, 7: BKPT), which is not emulated; pc 0x%08x", number, pc);
    }
    leave(pc);
}

/// The whole chip ///

static void map(uint32_t address, uint32_t bytes)
{
    void *base = (void *)(uintptr_t)address;
    if (uc_mmio_map(chip.uc, address, bytes, on_read, base, on_write, base)) {
        wire_fail("Unicorn cannot map 0x%08x", address);
    }
}

static void begin(uint32_t flash_kb, uint32_t ram_kb)
{
    memories *own = &chip.memories;
    own->flash_bytes = flash_kb * 1024;
    own->ram_bytes = ram_kb * 1024;
    own->flash = aligned_alloc(0x1000, own->flash_bytes);
    own->ram = aligned_alloc(0x1000, own->ram_bytes);
    chip.blocks = calloc(own->flash_bytes / 2, sizeof *chip.blocks);
    if (own->flash == NULL || own->ram == NULL || chip.blocks == NULL) {
        wire_fail("out of memory");
    }
    memset(own->flash, 0xFF, own->flash_bytes);
    uc_hook hooks[3];
    uc_err error = uc_open(UC_ARCH_ARM, UC_MODE_THUMB | UC_MODE_MCLASS, &chip.uc);
    error = error ? error : uc_ctl_set_cpu_model(chip.uc, UC_CPU_ARM_CORTEX_M4);
    error = error ? error : uc_mem_map_ptr(chip.uc, 0, own->flash_bytes, UC_PROT_READ | UC_PROT_EXEC, own->flash);
    error = error ? error : uc_mem_map_ptr(chip.uc, RAM, own->ram_bytes, UC_PROT_ALL, own->ram);
    error = error ? error : uc_hook_add(chip.uc, &hooks[0], UC_HOOK_BLOCK, (void *)on_block, NULL, 1, 0);
    error = error ? error : uc_hook_add(chip.uc, &hooks[1], UC_HOOK_MEM_INVALID, (void *)on_fault, NULL, 1, 0);
    error = error ? error : uc_hook_add(chip.uc, &hooks[2], UC_HOOK_INTR, (void *)on_exception, NULL, 1, 0);
    if (error) {
        wire_fail("Unicorn: %s", uc_strerror(error));
    }
    map(0x10000000, 0x2000);  /* FICR and UICR */
    map(0x40000000, 0x80000); /* peripherals */
    map(0x50000000, 0x1000);  /* GPIO */
    map(0xE000E000, 0x1000);  /* the core's own */
}

int main(int argc, char **argv)
{
    wire_options options = wire_arguments(argc, argv, 2, "nrf52 IMAGE nrf52832|nrf52840 [--uid HEX16] [--pace]");
    const bool large = strcmp(argv[2], "nrf52840") == 0;
    if (!large && strcmp(argv[2], "nrf52832") != 0) {
        wire_fail("chip is %s; expected nrf52832 or nrf52840", argv[2]);
    }
    const uint32_t part = large ? 0x52840 : 0x52832, flash_kb = large ? 1024 : 512, ram_kb = large ? 256 : 64;
    begin(flash_kb, ram_kb);
    chip.data_end = image_load(argv[1], chip.memories);
    wire_random(chip.memories.ram, chip.data_end); /* as after power-up */
    memset(chip.memories.ram + chip.data_end, PAINT, chip.memories.ram_bytes - chip.data_end);
    if (!options.named) {
        wire_random(options.uid, sizeof options.uid);
    }
    devices_begin(options.uid, part, flash_kb, ram_kb);
    wire_open(HERTZ, options.pace);
    start_over();
    for (;;) {
        const uc_err error = uc_emu_start(chip.uc, get(UC_ARM_REG_PC) | 1, 0, 0, 0);
        if (error && chip.sleep == AWAKE) { /* WFE is one to Unicorn, and is behind us then */
            wire_fail("%s at pc 0x%08x", uc_strerror(error), get(UC_ARM_REG_PC));
        }
    }
}
