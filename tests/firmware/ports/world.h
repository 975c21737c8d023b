/* A board's surroundings, for the cores of board.cpp to run in on this machine: a clock, a wire, and a host at its
 * end. Time passes only when a core waits or the test says so. */
#ifndef WORLD_H
#define WORLD_H

#include <stddef.h>
#include <stdint.h>

#include <deque>

#define BYTE_US 10U       /* at 1,000,000 baud; USB is no slower */
#define HANG_US 60000000U /* who waits so long within one call waits for ever */

struct World {
    uint64_t now_us = 0;
    /* the host */
    bool reads = true;      /* takes what the board sends */
    bool patient = false;   /* but only once the board has taken all that the host sends */
    bool dtr = false;
    std::deque<uint8_t> sent, read; /* by the host: not yet arrived, and received from the board */
    /* the board */
    std::deque<uint8_t> in, out;
    uint32_t room_in = 64;  /* bytes that its receive buffer holds */
    bool loses = false;     /* when that is full; USB makes the host wait instead */
    bool listens = true;    /* takes bytes from the wire at all */
    uint32_t leaves = 0;    /* bytes of `out` that the hardware knows of */
    /* what a test looks at */
    uint32_t lost = 0, begins = 0, ends = 0, rate = 0, yields = 0;
    uint64_t rested_us = 0, longest_us = 0; /* when lower tasks last ran, and the longest that they had to wait */
    bool hung = false;
};

extern World world;

void world_pass(uint64_t us);      /* let time pass */
bool world_wait(uint64_t &since);  /* a core waits for room; false: it waits for ever, and the test ends that */
int world_take();                  /* a byte out of the receive buffer, or -1 */
void world_sleep(uint64_t us);     /* let time pass, and other tasks run */
/* Put what there is room for into a transmit buffer of `limit` bytes; says how much. */
size_t world_enqueue(const uint8_t *data, size_t length, size_t limit);

#endif
