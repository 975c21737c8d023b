/* What the emulators share: a pty for a UART's other end, with bytes at the rates that both ends have set, the clock on
 * the wall, and what is asked of them by arguments and signals. Time is in the chip's cycles. */
#ifndef WIRE_H
#define WIRE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#define WIRE_BITS_A_BYTE 10

typedef struct {
    bool named; /* --uid was given */
    uint8_t uid[8];
    bool pace; /* --pace: emulated time never runs ahead of the wall's */
} wire_options;

/* What is printed as a line of JSON. */
typedef struct {
    uint64_t cycles;
    uint64_t awake;         /* cycles that it did not sleep */
    uint32_t stack;         /* bytes, of the deepest use */
    uint32_t untouched;     /* bytes between that and the data */
    unsigned long overruns; /* bytes lost because those before had not been read */
} wire_measured;

extern volatile sig_atomic_t wire_asked; /* a signal waits for wire_answer */

/* End with a sentence on stderr, and status 2. */
__attribute__((noreturn, format(printf, 1, 2))) void wire_fail(const char *format, ...);

/* Read what follows the first `count` arguments; from here on the process ends with the one that started it. */
wire_options wire_arguments(int argc, char **argv, int count, const char *usage);

/* Open the pty of a chip that counts `hertz`, and announce it. */
void wire_open(uint32_t hertz, bool pace);

/* Whether a host has opened the port since this was asked last: what a serial adapter makes a board's reset of. */
bool wire_opened(void);

/* Answer a signal with a line of JSON; false: it was the one to end. */
bool wire_answer(wire_measured measured);

/* Fill a buffer with what nobody can foresee. */
void wire_random(void *bytes, size_t count);

/* Take the byte whose time has passed on the host's line (-1: none); return when to ask again. `bit`: the chip's own
 * rate. Paces, so that it has to be called even if nothing can be received. */
uint64_t wire_receive(uint64_t now, bool asleep, uint64_t bit, int *byte);

/* Hand a byte to the host. */
void wire_transmit(uint8_t byte, uint64_t bit);

/* The chip sleeps from `now` and has nothing to do before `until`: wait as long on the wall, but no longer than until
 * the host sends something. Return when it is then; before `until`, wire_receive has a byte. */
uint64_t wire_sleep(uint64_t now, uint64_t until);

#endif
