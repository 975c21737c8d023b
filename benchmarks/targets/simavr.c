/* Calls step_run of an ATmega image under simavr and counts its cycles.
 *
 *   simavr-steps IMAGE MCU STEP_RUN BSS_END WEIGHTS BYTES < program > result
 *
 * Addresses are those of nm, decimal. Program: BYTES of weights, then one byte a step, the example to take. Result: a line
 * "cycles stack", of the last step and of the deepest one, then BYTES of weights. */
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DATA 0x800000 /* where nm puts the data space */
#define PAINT 0xA5
#define R24 24 /* the first argument of avr-gcc's calling convention */
#define SPL 0x5D

static void fail(const char *what)
{
    fprintf(stderr, "simavr: %s\n", what);
    exit(1);
}

/* The library's own messages would stand in the result. */
static void quiet(avr_t *avr, const int level, const char *format, va_list arguments)
{
    (void)avr, (void)level, (void)format, (void)arguments;
}

static void run_to(avr_t *avr, avr_flashaddr_t stop)
{
    while (avr->pc != stop) {
        const int state = avr_run(avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            fail("the program stopped by itself");
        }
    }
}

/* Return the address that the last call pushed. */
static avr_flashaddr_t return_address(const avr_t *avr)
{
    const unsigned sp = avr->data[SPL] | (unsigned)avr->data[SPL + 1] << 8;
    avr_flashaddr_t words = 0;
    for (unsigned i = 1; i <= avr->address_size; i++) {
        words = words << 8 | avr->data[sp + i];
    }
    return words * 2;
}

int main(int argc, char **argv)
{
    elf_firmware_t firmware;
    avr_global_logger_set(quiet);
    memset(&firmware, 0, sizeof firmware);
    if (argc != 7 || elf_read_firmware(argv[1], &firmware) != 0) {
        fail("no image");
    }
    avr_t *avr = avr_make_mcu_by_name(argv[2]);
    if (avr == NULL || avr_init(avr) != 0) {
        fail("no such microcontroller");
    }
    avr_load_firmware(avr, &firmware);
    avr->run_cycle_limit = 1; /* one instruction a call, so that no stop is run past */
    const avr_flashaddr_t entry = (avr_flashaddr_t)atol(argv[3]);
    const unsigned painted = (unsigned)(atol(argv[4]) - DATA), weights = (unsigned)(atol(argv[5]) - DATA);
    const size_t bytes = (size_t)atol(argv[6]);

    run_to(avr, entry); /* main's own call: from here every step starts */
    const unsigned sp = avr->data[SPL] | (unsigned)avr->data[SPL + 1] << 8;
    const avr_flashaddr_t stop = return_address(avr);
    const unsigned top = sp + avr->address_size; /* the return address counts: the caller of a step needs it too */
    uint8_t saved[4];
    memcpy(saved, &avr->data[sp + 1], sizeof saved);
    memset(&avr->data[painted], PAINT, sp + 1 - painted);
    if (fread(&avr->data[weights], 1, bytes, stdin) != bytes) {
        fail("too few weights");
    }
    avr_cycle_count_t cycles = 0;
    for (int at; (at = getchar()) != EOF;) {
        memcpy(&avr->data[sp + 1], saved, sizeof saved);
        avr->data[SPL] = (uint8_t)sp;
        avr->data[SPL + 1] = (uint8_t)(sp >> 8);
        avr->data[R24] = (uint8_t)at;
        avr->pc = entry;
        const avr_cycle_count_t before = avr->cycle;
        run_to(avr, stop);
        cycles = avr->cycle - before;
    }
    unsigned lowest = painted;
    while (lowest <= top && avr->data[lowest] == PAINT) {
        lowest++;
    }
    printf("%llu %u\n", (unsigned long long)cycles, top + 1 - lowest);
    fwrite(&avr->data[weights], 1, bytes, stdout);
    return 0;
}
