#define _GNU_SOURCE
#include "wire.h"

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000LL
#define GRAIN (SECOND / 500)     /* ns: shorter waits are put off, for each wakes the host */
#define FINE (SECOND / 10000)    /* ns: the same with --pace */
#define FORGIVEN (SECOND / 100)  /* ns: more than that by which it is late is not made up for */
#define LOOK 10000U              /* how often a second an idle wire is looked at while the chip works */
#define LOOK_ASLEEP 100U         /* and while it sleeps: a byte wakes it anyway */
#define START 50U                /* of a second: the board is let start before it hears what is sent */
#define PATIENCE_MS 1000         /* a host that reads nothing for so long is not there */

volatile sig_atomic_t wire_asked;
static volatile sig_atomic_t ended;

static struct {
    const char *program;
    int fd;
    uint32_t hertz;
    int opened; /* of inotify */
    bool pace, deaf;
    bool idle;     /* the host's last byte is through */
    int64_t begun; /* on the wall */
    int64_t owed;  /* ns slept in emulated time and not yet on the wall */
    size_t head, tail;
    uint8_t queue[4096];
} wire;

void wire_fail(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", wire.program);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

/// What is asked ///

static void ask(int number)
{
    if (number == SIGTERM) {
        ended = 1;
    }
    wire_asked = 1;
}

static void read_uid(const char *text, uint8_t *uid)
{
    if (strlen(text) != 16 || strspn(text, "0123456789abcdefABCDEF") != 16) {
        wire_fail("--uid is %s; expected 16 hexadecimal digits", text);
    }
    for (int i = 0; i < 8; i++) {
        const char pair[3] = { text[2 * i], text[2 * i + 1], 0 };
        uid[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
}

wire_options wire_arguments(int argc, char **argv, int count, const char *usage)
{
    wire_options options = { .named = false };
    const char *slash = strrchr(argv[0], '/');
    wire.program = slash != NULL ? slash + 1 : argv[0];
    bool known = argc > count;
    for (int i = count + 1; known && i < argc; i++) {
        if (strcmp(argv[i], "--pace") == 0) {
            options.pace = true;
        } else if (strcmp(argv[i], "--uid") == 0 && i + 1 < argc) {
            options.named = true;
            read_uid(argv[++i], options.uid);
        } else {
            known = false;
        }
    }
    if (!known) {
        wire_fail("usage: %s", usage);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGTERM, ask);
    signal(SIGUSR1, ask);
    signal(SIGINT, SIG_IGN); /* the terminal's Ctrl-C is the coordinator's */
    return options;
}

void wire_random(void *bytes, size_t count)
{
    for (uint8_t *next = bytes, *end = next + count; next < end;) {
        const ssize_t got = getrandom(next, (size_t)(end - next), 0);
        if (got < 0 && errno != EINTR) {
            wire_fail("the system has no random numbers");
        }
        next += got > 0 ? got : 0;
    }
}

/// Time ///

static int64_t wall(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

static int64_t nanoseconds(uint64_t cycles)
{
    return (int64_t)((unsigned __int128)cycles * SECOND / wire.hertz);
}

static uint64_t cycles(int64_t nanoseconds)
{
    return (uint64_t)((unsigned __int128)nanoseconds * wire.hertz / SECOND);
}

/* Let `left` ns pass, unless a signal comes, or a byte that it is `listening` for; return what is left then. */
static int64_t linger(int64_t left, bool listening)
{
    const int64_t until = wall() + left;
    const struct timespec timeout = { .tv_sec = left / SECOND, .tv_nsec = left % SECOND };
    struct pollfd host = { .fd = wire.fd, .events = POLLIN };
    ppoll(&host, listening, &timeout, NULL);
    return until - wall();
}

static int64_t ahead(uint64_t now)
{
    return nanoseconds(now) - (wall() - wire.begun);
}

static void pace(uint64_t now, int64_t grain)
{
    for (int64_t left; wire.pace && !wire_asked && (left = ahead(now)) > grain;) {
        linger(left, false);
    }
}

uint64_t wire_sleep(uint64_t now, uint64_t until)
{
    const int64_t left = wire.pace ? ahead(until) : wire.owed + nanoseconds(until - now);
    wire.owed = left;
    if (left <= (wire.pace ? FINE : GRAIN)) {
        return until;
    }
    wire.owed = linger(left, wire.idle);
    if (wire.owed <= 0) {
        wire.owed = wire.owed < -FORGIVEN ? -FORGIVEN : wire.owed;
        return until;
    }
    const uint64_t early = cycles(wire.owed);
    wire.owed = 0;
    return early < until - now ? until - early : now;
}

bool wire_answer(wire_measured measured)
{
    wire_asked = 0;
    const bool end = ended; /* if it comes from here on, there is another line to print */
    pace(measured.cycles, 0);
    printf("{\"cycles\": %llu, \"awake\": %llu, \"stack\": %u, \"untouched\": %u, \"overruns\": %lu}\n",
           (unsigned long long)measured.cycles, (unsigned long long)measured.awake, measured.stack, measured.untouched,
           measured.overruns);
    fflush(stdout);
    return !end;
}

/// The wire ///

void wire_open(uint32_t hertz, bool paced)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        wire_fail("no pty can be opened");
    }
    const char *name = ptsname(master);
    /* Kept open for good: with no slave open at all, reading the master is an error until a host comes. */
    const int slave = name != NULL ? open(name, O_RDWR | O_NOCTTY) : -1;
    struct termios2 settings;
    if (slave < 0 || ioctl(slave, TCGETS2, &settings) != 0) {
        wire_fail("the pty's other end cannot be opened");
    }
    settings.c_iflag = settings.c_oflag = settings.c_lflag = 0;
    ioctl(slave, TCSETS2, &settings);
    fcntl(master, F_SETFL, O_NONBLOCK);
    prctl(PR_SET_TIMERSLACK, 1UL);
    wire.opened = inotify_init1(IN_NONBLOCK);
    inotify_add_watch(wire.opened, name, IN_OPEN);
    wire.fd = master;
    wire.hertz = hertz;
    wire.pace = paced;
    wire.begun = wall();
    printf("PORT %s\n", name);
    fflush(stdout);
}

bool wire_opened(void)
{
    struct inotify_event event;
    bool opened = false;
    while (read(wire.opened, &event, sizeof event) > 0) {
        opened = true;
    }
    return opened;
}

/* Cycles of a bit as the host has set its end. */
static uint64_t host_bit(uint64_t bit)
{
    struct termios2 settings;
    if (ioctl(wire.fd, TCGETS2, &settings) != 0 || settings.c_ospeed == 0) {
        return bit;
    }
    return (wire.hertz + settings.c_ospeed / 2) / settings.c_ospeed;
}

/* What arrives if the two ends count bits at rates more than 4 % apart. */
static uint8_t heard(uint8_t byte, uint64_t own, uint64_t host)
{
    const uint64_t apart = host > own ? host - own : own - host;
    return 100 * apart > 4 * own ? byte ^ 0x5A : byte;
}

uint64_t wire_receive(uint64_t now, bool asleep, uint64_t bit, int *byte)
{
    *byte = -1;
    pace(now, FINE);
    if (now < wire.hertz / START) {
        return now + wire.hertz / LOOK;
    }
    if (wire.head == wire.tail) {
        const ssize_t got = read(wire.fd, wire.queue, sizeof wire.queue);
        wire.idle = got <= 0;
        if (wire.idle) {
            return now + wire.hertz / (asleep ? LOOK_ASLEEP : LOOK);
        }
        wire.head = 0;
        wire.tail = (size_t)got;
    }
    const uint64_t host = host_bit(bit);
    *byte = heard(wire.queue[wire.head++], bit, host);
    return now + WIRE_BITS_A_BYTE * host;
}

void wire_transmit(uint8_t byte, uint64_t bit)
{
    const uint8_t sent = heard(byte, bit, host_bit(bit));
    while (!ended && write(wire.fd, &sent, 1) != 1) {
        struct pollfd host = { .fd = wire.fd, .events = POLLOUT };
        if (wire.deaf || poll(&host, 1, PATIENCE_MS) == 0) {
            wire.deaf = true; /* lost, as on a wire that nobody listens to */
            return;
        }
    }
    wire.deaf = false;
}
