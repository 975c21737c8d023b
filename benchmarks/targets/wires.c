/* As many wires as asked for, each at its bit rate in real time, with a node at its end that is made of the firmware's
 * link. A wire is a TCP connection to the port that is announced; the process ends with the last of them. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* Of simulation/peer.c. */
struct peer;
uint32_t peer_bytes(void);
void peer_reset(struct peer *peer);
uint32_t peer_exchange(struct peer *peer, const uint8_t *bytes, uint32_t length, uint8_t *out);
#define OUT_MAX 65536U

#define SECOND 1000000000LL
#define TICK (SECOND / 1000) /* ns: a USB frame, which is how often a serial adapter hands over what has come */
#define BITS_A_BYTE 10
#define QUEUE (2 * OUT_MAX)
#define WIRES_MAX 1024

/* One direction: bytes that wait, and when the first of them began to travel. */
struct line {
    uint8_t bytes[QUEUE];
    uint32_t count;
    int64_t since;
};

struct wire {
    int connection;
    struct line down, up;
    struct peer *node;
};

static int64_t byte_time; /* ns */

static void fail(const char *what)
{
    fprintf(stderr, "wires: %s\n", what);
    exit(2);
}

static int64_t wall(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * SECOND + now.tv_nsec;
}

/* `count` bytes were put behind those that wait. */
static void extend(struct line *line, uint32_t count, int64_t now)
{
    if (line->count == 0 && line->since < now) {
        line->since = now;
    }
    line->count += count;
}

/* How many of the bytes that wait have travelled. */
static uint32_t arrived(const struct line *line, int64_t now)
{
    const int64_t travelled = (now - line->since) / byte_time;
    return travelled < line->count ? (uint32_t)travelled : line->count;
}

static void take(struct line *line, uint32_t count)
{
    line->count -= count;
    line->since += count * byte_time;
    memmove(line->bytes, line->bytes + count, line->count);
}

/* False once the host has hung up. */
static bool carry(struct wire *wire, int64_t now)
{
    struct line *down = &wire->down, *up = &wire->up;
    const ssize_t got = read(wire->connection, down->bytes + down->count, QUEUE - down->count);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        return false;
    }
    extend(down, got > 0 ? (uint32_t)got : 0, now);
    const uint32_t heard = arrived(down, now);
    if (up->count + OUT_MAX <= QUEUE && heard > 0) {
        extend(up, peer_exchange(wire->node, down->bytes, heard, up->bytes + up->count), now);
        take(down, heard);
    }
    const uint32_t said = arrived(up, now);
    const ssize_t sent = said > 0 ? write(wire->connection, up->bytes, said) : 0;
    take(up, sent > 0 ? (uint32_t)sent : 0);
    return true;
}

static int announce(int count)
{
    const int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in place = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t size = sizeof place;
    if (listener < 0 || bind(listener, (struct sockaddr *)&place, size) != 0 || listen(listener, count) != 0 ||
        getsockname(listener, (struct sockaddr *)&place, &size) != 0) {
        fail("no port of this machine can be opened");
    }
    printf("%d\n", ntohs(place.sin_port));
    fflush(stdout);
    return listener;
}

static void join(struct wire *wire, int listener)
{
    const int at_once = 1;
    wire->connection = accept(listener, NULL, NULL);
    if (wire->connection < 0 || fcntl(wire->connection, F_SETFL, O_NONBLOCK) != 0 ||
        setsockopt(wire->connection, IPPROTO_TCP, TCP_NODELAY, &at_once, sizeof at_once) != 0) {
        fail("no connection");
    }
    wire->node = malloc(peer_bytes());
    if (wire->node == NULL) {
        fail("no memory");
    }
    peer_reset(wire->node);
}

int main(int argc, char **argv)
{
    const int count = argc == 3 ? atoi(argv[1]) : 0, baud = argc == 3 ? atoi(argv[2]) : 0;
    if (count < 1 || count > WIRES_MAX || baud < 1) {
        fail("usage: wires COUNT BAUD");
    }
    struct wire *wires = calloc((size_t)count, sizeof *wires);
    if (wires == NULL) {
        fail("no memory");
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    prctl(PR_SET_TIMERSLACK, 1UL);
    signal(SIGPIPE, SIG_IGN);
    byte_time = SECOND * BITS_A_BYTE / baud;
    const int listener = announce(count);
    for (int i = 0; i < count; i++) {
        join(&wires[i], listener);
    }
    int open = count;
    for (int64_t next = wall(); open > 0; next += TICK) {
        const struct timespec until = { .tv_sec = next / SECOND, .tv_nsec = next % SECOND };
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
        for (int i = 0; i < count; i++) {
            if (wires[i].connection >= 0 && !carry(&wires[i], wall())) {
                close(wires[i].connection);
                wires[i].connection = -1;
                open--;
            }
        }
    }
    return 0;
}
