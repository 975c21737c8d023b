/* Bytes, clock and identity on POSIX. */
#define _DEFAULT_SOURCE
#define _XOPEN_SOURCE 600
#define _DARWIN_C_SOURCE
#include "native.h"

#include "node/port.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_BYTES 4096U /* a power of two */
#define WAIT_MS 250       /* how late a timer of the node may run */
#define PATIENCE_MS 1000  /* a host that reads nothing for so long is not there */

static struct {
    int fd;       /* the pty's master or the client; -1: nobody is connected */
    int listener; /* -1: a pty */
    bool deaf;    /* the host reads nothing: do not wait for it again until it does */
    uint32_t head, tail;
    uint8_t queue[QUEUE_BYTES]; /* received, not yet read: bytes head..tail - 1, modulo its size */
} wire = {.fd = -1, .listener = -1};

static uint64_t identity;

/// Connecting ///

static void set_nonblocking(int fd)
{
    if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0) {
        native_fail("The wire cannot be made non-blocking: %s", strerror(errno));
    }
}

static void announce(const char *name)
{
    printf("PORT %s\n", name);
    fflush(stdout);
}

void native_open_pty(void)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) {
        native_fail("No pty can be opened: %s", strerror(errno));
    }
    const char *name = ptsname(master);
    /* Kept open for good: with no slave open at all, reading the master is an error until a host comes. */
    const int slave = name != NULL ? open(name, O_RDWR | O_NOCTTY) : -1;
    struct termios settings;
    if (slave < 0 || tcgetattr(slave, &settings) != 0) {
        native_fail("The pty's other end cannot be opened: %s", strerror(errno));
    }
    cfmakeraw(&settings);
    if (tcsetattr(slave, TCSANOW, &settings) != 0) {
        native_fail("The pty cannot be made raw: %s", strerror(errno));
    }
    set_nonblocking(master);
    wire.fd = master;
    announce(name);
}

void native_open_tcp(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int listener = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    socklen_t length = sizeof address;
    if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
        bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 4) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &length) != 0) {
        native_fail("--tcp %u: cannot listen there: %s; 0 takes a free port", (unsigned)port, strerror(errno));
    }
    set_nonblocking(listener);
    wire.listener = listener;
    char name[40];
    snprintf(name, sizeof name, "socket://127.0.0.1:%u", (unsigned)ntohs(address.sin_port));
    announce(name);
}

/* A client at a time; others wait in the listener's queue, as they would for a serial port that is in use. */
static void welcome(void)
{
    const int client = accept(wire.listener, NULL, NULL), on = 1;
    if (client >= 0) {
        set_nonblocking(client);
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        wire.fd = client;
        wire.deaf = false;
    }
}

static void hang_up(void)
{
    if (wire.listener >= 0 && wire.fd >= 0) {
        close(wire.fd);
        wire.fd = -1;
    }
}

static bool would_block(void)
{
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

/// Bytes ///

/* Take over what has arrived; false if there was nothing or no room for it. */
static bool fill(void)
{
    if (wire.fd < 0) {
        welcome();
        return false;
    }
    const uint32_t start = wire.tail % QUEUE_BYTES, room = QUEUE_BYTES - (wire.tail - wire.head);
    const uint32_t straight = QUEUE_BYTES - start < room ? QUEUE_BYTES - start : room;
    if (straight == 0) {
        return false;
    }
    const ssize_t got = read(wire.fd, wire.queue + start, straight);
    if (got > 0) {
        wire.tail += (uint32_t)got;
        return true;
    }
    if (got == 0 || !would_block()) {
        hang_up();
    }
    return false;
}

int16_t port_read(void)
{
    if (wire.head == wire.tail && !fill()) {
        return -1;
    }
    return wire.queue[wire.head++ % QUEUE_BYTES];
}

/* Wait until the host has made room, and take what it sends meanwhile: it may be waiting for us to do so. */
static bool wait_for_room(void)
{
    const uint32_t since = port_milliseconds();
    for (;;) {
        const bool full = wire.tail - wire.head == QUEUE_BYTES;
        struct pollfd wanted = {.fd = wire.fd, .events = (short)(full ? POLLOUT : POLLIN | POLLOUT)};
        const uint32_t waited = port_milliseconds() - since;
        if (waited >= PATIENCE_MS || poll(&wanted, 1, (int)(PATIENCE_MS - waited)) == 0) {
            return false;
        }
        if (wanted.revents & POLLOUT) {
            return true;
        }
        fill();
        if (wire.fd < 0) {
            return false;
        }
    }
}

/* False: the rest is lost, as on a wire that nobody listens to. */
static bool put(const uint8_t *data, uint16_t length)
{
    while (length > 0 && wire.fd >= 0) {
        const ssize_t sent = write(wire.fd, data, length);
        if (sent > 0) {
            data += sent;
            length = (uint16_t)(length - sent);
            wire.deaf = false;
        } else if (sent < 0 && !would_block()) {
            hang_up();
        } else if (wire.deaf || !wait_for_room()) {
            wire.deaf = true;
            return false;
        }
    }
    return wire.fd >= 0;
}

void port_write(const uint8_t *data, uint16_t length)
{
    static const uint8_t delimiter[1] = {0}; /* ends the frame that was cut short */
    if (!wire.deaf || put(delimiter, 1)) {
        put(data, length);
    }
}

void native_wait(void)
{
    struct pollfd wanted = {.fd = wire.fd >= 0 ? wire.fd : wire.listener, .events = POLLIN};
    poll(&wanted, 1, WAIT_MS);
}

/// Clock and identity ///

uint32_t port_milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000U + (uint64_t)now.tv_nsec / 1000000U);
}

void native_set_identity(uint64_t uid)
{
    identity = uid;
}

/* The first hexadecimal digits of --uid are the first bytes. */
void port_identity(uint8_t id[8])
{
    for (unsigned i = 0; i < 8; i++) {
        id[i] = (uint8_t)(identity >> (56 - 8 * i));
    }
}

uint32_t port_boot_id(void)
{
    static uint32_t boot;
    if (boot == 0) {
        const int random = open("/dev/urandom", O_RDONLY);
        if (random < 0 || read(random, &boot, sizeof boot) != (ssize_t)sizeof boot) {
            native_fail("/dev/urandom: no random boot id can be read: %s", strerror(errno));
        }
        close(random);
        boot |= 1U;
    }
    return boot;
}

/* Neither a pty nor a socket has a rate: any will do. */
bool port_baud_supported(uint32_t baud)
{
    (void)baud;
    return true;
}

void port_set_baud(uint32_t baud)
{
    (void)baud;
}
