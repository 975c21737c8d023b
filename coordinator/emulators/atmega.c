/* Runs the image of an AVR board under simavr, cycle-exact; its UART 0 is a pty.
 *
 *   atmega IMAGE MCU HERTZ [--uid HEX16]
 *
 * The first line printed is PORT and the pty's name. Bytes travel at the rates that the two ends have set: one that
 * arrives at another rate than the board's arrives as noise. Emulated time runs as fast as it can while the program
 * works, and no faster than the clock on the wall while it sleeps. Ends on SIGTERM, or with the process that started it,
 * after a line of JSON: cycles, those awake, the deepest use of the stack and what lay untouched between it and the data
 * (bytes), and the bytes that came while the UART's two were still unread. */
#define _GNU_SOURCE
#include <asm/termbits.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <simavr/avr_eeprom.h>
#include <simavr/avr_uart.h>
#include <simavr/sim_avr.h>
#include <simavr/sim_elf.h>
#include <simavr/sim_time.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <unistd.h>

#define PAINT 0xA5
#define BITS_A_BYTE 10
#define UART_DEPTH 2
#define LOOK_US 100       /* how long an idle wire is left alone, in emulated time */
#define PATIENCE_MS 1000  /* a host that reads nothing for so long is not there */
#define IDENTITY_AT 4     /* in EEPROM: firmware/ports/arduino/identity.cpp */

static struct {
    avr_t *avr;
    avr_uart_t *uart;
    avr_irq_t *input;
    int fd;
    bool deaf;
    avr_cycle_count_t slept;
    unsigned long overruns;
    unsigned data_end; /* first byte behind .bss */
    size_t head, tail;
    uint8_t queue[4096];
} board;

static volatile sig_atomic_t stopped;

static void fail(const char *what)
{
    fprintf(stderr, "atmega: %s\n", what);
    exit(2);
}

static void quiet(avr_t *avr, const int level, const char *format, va_list arguments)
{
    (void)avr, (void)level, (void)format, (void)arguments;
}

static void stop(int number)
{
    (void)number;
    stopped = 1;
}

/// The wire ///

static void open_pty(void)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        fail("no pty can be opened");
    }
    const char *name = ptsname(master);
    /* Kept open for good: with no slave open at all, reading the master is an error until a host comes. */
    const int slave = name != NULL ? open(name, O_RDWR | O_NOCTTY) : -1;
    struct termios2 settings;
    if (slave < 0 || ioctl(slave, TCGETS2, &settings) != 0) {
        fail("the pty's other end cannot be opened");
    }
    settings.c_iflag = settings.c_oflag = settings.c_lflag = 0;
    ioctl(slave, TCSETS2, &settings);
    fcntl(master, F_SETFL, O_NONBLOCK);
    board.fd = master;
    printf("PORT %s\n", name);
    fflush(stdout);
}

/* Cycles of a bit as the board's UART is set; simavr counts a parity bit that is not there. */
static avr_cycle_count_t own_bit(void)
{
    const avr_uart_t *uart = board.uart;
    const unsigned divisor = avr_regbit_get(board.avr, uart->ubrrl) | avr_regbit_get(board.avr, uart->ubrrh) << 8;
    const avr_cycle_count_t cycles = (divisor + 1U) * (avr_regbit_get(board.avr, uart->u2x) ? 8U : 16U);
    board.uart->cycles_per_byte = BITS_A_BYTE * cycles;
    return cycles;
}

static avr_cycle_count_t host_bit(void)
{
    struct termios2 settings;
    if (ioctl(board.fd, TCGETS2, &settings) != 0 || settings.c_ospeed == 0) {
        return own_bit();
    }
    return (board.avr->frequency + settings.c_ospeed / 2) / settings.c_ospeed;
}

/* What arrives if the two ends count bits at rates more than 4 % apart. */
static uint8_t heard(uint8_t byte, avr_cycle_count_t host)
{
    const avr_cycle_count_t own = own_bit(), apart = host > own ? host - own : own - host;
    return 100 * apart > 4 * own ? byte ^ 0x5A : byte;
}

/* A byte's time has passed on the host's line: deliver it, and come again when the next one's will have. */
static avr_cycle_count_t receive(avr_t *avr, avr_cycle_count_t when, void *unused)
{
    (void)unused;
    if (board.head == board.tail) {
        const ssize_t got = read(board.fd, board.queue, sizeof board.queue);
        if (got <= 0) {
            return when + avr_usec_to_cycles(avr, LOOK_US);
        }
        board.head = 0;
        board.tail = (size_t)got;
    }
    const avr_cycle_count_t host = host_bit();
    const uint8_t byte = heard(board.queue[board.head++], host);
    if ((board.uart->input.write - board.uart->input.read) % 64U >= UART_DEPTH) {
        board.overruns++;
    } else {
        avr_raise_irq(board.input, byte);
    }
    return when + BITS_A_BYTE * host;
}

static void transmit(avr_irq_t *irq, uint32_t value, void *unused)
{
    (void)irq, (void)unused;
    const uint8_t byte = heard((uint8_t)value, host_bit());
    while (write(board.fd, &byte, 1) != 1) {
        struct pollfd wanted = { .fd = board.fd, .events = POLLOUT };
        if (board.deaf || poll(&wanted, 1, PATIENCE_MS) == 0) {
            board.deaf = true; /* lost, as on a wire that nobody listens to */
            return;
        }
    }
    board.deaf = false;
}

/// The board ///

static void rest(avr_t *avr, avr_cycle_count_t how_long)
{
    board.slept += how_long;
    avr_callback_sleep_raw(avr, how_long);
}

static void write_eeprom(const char *uid)
{
    uint8_t bytes[IDENTITY_AT + 8];
    avr_eeprom_desc_t cells = { .ee = bytes, .offset = 0, .size = sizeof bytes };
    /* It has been on before, nobody knows how often. */
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) {
        fail("no random numbers");
    }
    for (int i = 0; uid != NULL && i < 8; i++) {
        unsigned byte;
        if (strlen(uid) != 16 || sscanf(uid + 2 * i, "%2x", &byte) != 1) {
            fail("--uid: expected 16 hexadecimal digits");
        }
        bytes[IDENTITY_AT + i] = (uint8_t)byte;
    }
    avr_ioctl(board.avr, AVR_IOCTL_EEPROM_SET, &cells);
}

static void start(const char *image, const char *mcu, const char *hertz)
{
    static elf_firmware_t firmware;
    if (elf_read_firmware(image, &firmware) != 0) {
        fail("the image cannot be read");
    }
    avr_t *avr = board.avr = avr_make_mcu_by_name(mcu);
    if (avr == NULL || avr_init(avr) != 0) {
        fail("no such microcontroller");
    }
    avr_load_firmware(avr, &firmware);
    avr->frequency = (uint32_t)atol(hertz);
    avr->sleep = rest;
    for (avr_io_t *io = avr->io_port; io != NULL; io = io->next) {
        if (strcmp(io->kind, "uart") == 0 && ((avr_uart_t *)io)->name == '0') {
            board.uart = (avr_uart_t *)io;
        }
    }
    uint32_t flags = 0; /* no echo on stdout, no sleeping while it polls */
    avr_ioctl(avr, AVR_IOCTL_UART_SET_FLAGS('0'), &flags);
    board.input = avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_INPUT);
    avr_irq_register_notify(avr_io_getirq(avr, AVR_IOCTL_UART_GETIRQ('0'), UART_IRQ_OUTPUT), transmit, NULL);
    board.data_end = avr->ioend + 1U + firmware.datasize + firmware.bsssize;
    memset(avr->data + board.data_end, PAINT, avr->ramend + 1U - board.data_end);
    avr_cycle_timer_register_usec(avr, LOOK_US, receive, NULL);
}

static void report(void)
{
    const avr_t *avr = board.avr;
    unsigned lowest = board.data_end;
    while (lowest <= avr->ramend && avr->data[lowest] == PAINT) {
        lowest++;
    }
    printf("{\"cycles\": %llu, \"awake\": %llu, \"stack\": %u, \"untouched\": %u, \"overruns\": %lu}\n",
           (unsigned long long)avr->cycle, (unsigned long long)(avr->cycle - board.slept), avr->ramend + 1U - lowest,
           lowest - board.data_end, board.overruns);
}

int main(int argc, char **argv)
{
    if (argc != 4 && (argc != 6 || strcmp(argv[4], "--uid") != 0)) {
        fail("usage: atmega IMAGE MCU HERTZ [--uid HEX16]");
    }
    avr_global_logger_set(quiet);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, stop);
    signal(SIGINT, SIG_IGN); /* the terminal's Ctrl-C is the coordinator's */
    start(argv[1], argv[2], argv[3]);
    write_eeprom(argc == 6 ? argv[5] : NULL);
    open_pty();
    while (!stopped) {
        const int state = avr_run(board.avr);
        if (state == cpu_Done || state == cpu_Crashed) {
            fail("the program stopped by itself");
        }
    }
    report();
    return 0;
}
