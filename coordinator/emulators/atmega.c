/* Runs the image of an AVR board under simavr, cycle-exact; its UART 0 is a pty.
 *
 *   atmega IMAGE MCU HERTZ [--uid HEX16] [--pace]
 *
 * The first line printed is PORT and the pty's name. Bytes travel at the rates that the two ends have set: one that
 * arrives at another rate than the board's arrives as noise. Emulated time runs as fast as it can while the program
 * works, and no faster than the clock on the wall while it sleeps, or at all with --pace. SIGUSR1 makes it print a line
 * of JSON: cycles, those awake, the deepest use of the stack and what lay untouched between it and the data (bytes),
 * and the bytes that came while the UART's two were still unread. It ends on SIGTERM, or with the process that started
 * it, after one such line more.
 *
 * IMAGE is an ELF file, or the Intel HEX of a boot loader. Then the only program is one that does nothing, and each
 * host that opens the port resets the chip, into the boot loader, as the DTR line does on a board. */
#include <simavr/avr_eeprom.h>
#include <simavr/avr_uart.h>
#include <simavr/avr_watchdog.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_hex.h>
#include <simavr/sim_time.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "wire.h"

#define PAINT 0xA5
#define UART_DEPTH 2
#define IDENTITY_AT 4 /* in EEPROM: firmware/ports/arduino/cores/avr.cpp */

static struct {
    avr_t *avr;
    avr_uart_t *uart;
    avr_irq_t *input;
    avr_cycle_count_t slept;
    unsigned long overruns;
    unsigned data_end; /* first byte behind .bss */
    bool boots;        /* by a boot loader */
    bool pulled;       /* its reset line */
    void (*reset)(avr_t *);
} board;

static void quiet(avr_t *avr, const int level, const char *format, va_list arguments)
{
    (void)avr, (void)level, (void)format, (void)arguments;
}

/// The wire ///

/* Cycles of a bit as the board's UART is set; simavr counts a parity bit that is not there. */
static avr_cycle_count_t own_bit(void)
{
    const avr_uart_t *uart = board.uart;
    const unsigned divisor = avr_regbit_get(board.avr, uart->ubrrl) | avr_regbit_get(board.avr, uart->ubrrh) << 8;
    const avr_cycle_count_t cycles = (divisor + 1U) * (avr_regbit_get(board.avr, uart->u2x) ? 8U : 16U);
    board.uart->cycles_per_byte = WIRE_BITS_A_BYTE * cycles;
    return cycles;
}

static avr_cycle_count_t receive(avr_t *avr, avr_cycle_count_t when, void *unused)
{
    (void)unused;
    int byte;
    board.pulled |= board.boots && wire_opened();
    const avr_cycle_count_t again = wire_receive(when, avr->state == cpu_Sleeping, own_bit(), &byte);
    if (byte < 0) {
        return again;
    }
    if ((board.uart->input.write - board.uart->input.read) % 64U >= UART_DEPTH) {
        board.overruns++;
    } else {
        avr_raise_irq(board.input, (uint32_t)byte);
    }
    return again;
}

static void transmit(avr_irq_t *irq, uint32_t value, void *unused)
{
    (void)irq, (void)unused;
    wire_transmit((uint8_t)value, own_bit());
}

/// The board ///

static void rest(avr_t *avr, avr_cycle_count_t how_long)
{
    const avr_cycle_count_t until = avr->cycle + how_long, when = wire_sleep(avr->cycle, until);
    board.slept += when - avr->cycle;
    if (when < until) {
        avr_cycle_timer_register(avr, when - avr->cycle, receive, NULL);
        avr->cycle -= until - when; /* simavr adds all of how_long */
    }
}

static void write_eeprom(const wire_options *options)
{
    uint8_t bytes[IDENTITY_AT + 8];
    avr_eeprom_desc_t cells = { .ee = bytes, .offset = 0, .size = sizeof bytes };
    wire_random(bytes, sizeof bytes); /* it has been on before, nobody knows how often */
    if (options->named) {
        memcpy(bytes + IDENTITY_AT, options->uid, sizeof options->uid);
    }
    avr_ioctl(board.avr, AVR_IOCTL_EEPROM_SET, &cells);
}

/* simavr forgets every timer when the chip is reset, by its watchdog as well. */
static void listen_again(avr_t *avr)
{
    if (board.reset != NULL) {
        board.reset(avr);
    }
    avr_cycle_timer_register(avr, 1, receive, NULL);
}

static int pull_reset(avr_t *avr)
{
    board.pulled = false;
    for (avr_io_t *io = avr->io_port; io != NULL; io = io->next) {
        if (strcmp(io->kind, "watchdog") == 0) {
            ((avr_watchdog_t *)io)->reset_context.wdrf = 0; /* simavr takes every reset after its first for its own */
        }
    }
    avr_reset(avr);
    avr_regbit_clear(avr, avr->reset_flags.porf);
    avr_regbit_set(avr, avr->reset_flags.extrf);
    return avr->state;
}

static void load_boot_loader(avr_t *avr, const char *path)
{
    ihex_chunk_p chunks = NULL;
    const int count = read_ihex_chunks(path, &chunks);
    if (count <= 0) {
        wire_fail("%s is no Intel HEX file that can be read", path);
    }
    for (int i = 0; i < count; i++) {
        if (chunks[i].size > avr->flashend || chunks[i].baseaddr > avr->flashend - chunks[i].size + 1U) {
            wire_fail("%s does not lie in the chip's flash", path);
        }
        memcpy(avr->flash + chunks[i].baseaddr, chunks[i].data, chunks[i].size);
    }
    memcpy(avr->flash, "\xff\xcf", 2); /* rjmp .-2: through empty flash it would come by the boot loader unasked */
    board.boots = true;
    board.reset = avr->reset;
    avr->reset = listen_again;
    avr->codeend = avr->flashend;
    avr->reset_pc = chunks[0].baseaddr;
    free_ihex_chunks(chunks);
    pull_reset(avr);
}

static void load(avr_t *avr, const char *image)
{
    static elf_firmware_t firmware;
    const char *suffix = strrchr(image, '.');
    if (suffix != NULL && strcmp(suffix, ".hex") == 0) {
        load_boot_loader(avr, image);
    } else if (elf_read_firmware(image, &firmware) == 0) {
        avr_load_firmware(avr, &firmware);
    } else {
        wire_fail("%s is no ELF file that can be read", image);
    }
    board.data_end = avr->ioend + 1U + firmware.datasize + firmware.bsssize;
    if (board.data_end > avr->ramend) {
        wire_fail("%s: its data ends at 0x%04x, the chip's RAM at 0x%04x", image, board.data_end, avr->ramend);
    }
    memset(avr->data + board.data_end, PAINT, avr->ramend + 1U - board.data_end);
}

static void start(const char *image, const char *mcu, const char *hertz)
{
    avr_t *avr = board.avr = avr_make_mcu_by_name(mcu);
    if (avr == NULL || avr_init(avr) != 0) {
        wire_fail("simavr knows no microcontroller %s", mcu);
    }
    load(avr, image);
    avr->frequency = (uint32_t)atol(hertz);
    avr->sleep = rest;
    for (avr_io_t *io = avr->io_port; io != NULL; io = io->next) {
        if (strcmp(io->kind, "uart") == 0 && ((avr_uart_t *)io)->name == '0') {
            board.uart = (avr_uart_t *)io;
        }
    }
    if (board.uart == NULL || avr->frequency == 0) {
        wire_fail("%s at %s Hz: expected a microcontroller with a UART 0, and its frequency", mcu, hertz);
    }
    uint32_t flags = 0; /* no echo on stdout, no sleeping while it polls */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    board.input = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), transmit, NULL);
    avr_cycle_timer_register(avr, 1, receive, NULL);
}

static wire_measured measured(void)
{
    const avr_t *avr = board.avr;
    uint32_t lowest = board.data_end;
    while (lowest <= avr->ramend && avr->data[lowest] == PAINT) {
        lowest++;
    }
    return (wire_measured){
        .cycles = avr->cycle,
        .awake = avr->cycle - board.slept,
        .stack = avr->ramend + 1U - lowest,
        .untouched = lowest - board.data_end,
        .overruns = board.overruns,
    };
}

int main(int argc, char **argv)
{
    const wire_options options = wire_arguments(argc, argv, 3, "atmega IMAGE MCU HERTZ [--uid HEX16] [--pace]");
    avr_global_logger_set(quiet);
    start(argv[1], argv[2], argv[3]);
    write_eeprom(&options);
    wire_open(board.avr->frequency, options.pace);
    while (!wire_asked || wire_answer(measured())) {
        const avr_cycle_count_t before = board.avr->cycle;
        const int state = board.pulled ? pull_reset(board.avr) : avr_run(board.avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            wire_fail("the program stopped by itself");
        }
        if (board.avr->cycle < before) {
            board.avr->cycle = before; /* simavr counts anew after each reset, but its timers were set before that */
        }
    }
    return 0;
}
