/* The node's end of the wire: frames in, frames out, and what they lie in. */
#ifndef WIRE_H
#define WIRE_H

#include "link/link.h"

#include <stdbool.h>
#include <stdint.h>

void wire_start(void);
/* Reads what the port has, at most one frame's worth; *any says whether there was anything. True: `frame` is whole and
 * valid until the next call. */
bool wire_receive(struct link_frame *frame, bool *any);
uint16_t wire_rejected(void); /* frames dropped since boot; wraps */

/* Where to build the payload of the next frame, LINK_MTU bytes; training a sample overwrites it. */
uint8_t *wire_payload(void);
/* Sends the payload built there. */
void wire_send(uint8_t type, uint8_t transfer, uint16_t chunk, uint8_t length);
/* early: number of the COMMIT that this answers, or 0. */
void wire_acknowledge(const struct link_incoming *in, uint8_t early);
void wire_error(uint8_t transfer, uint8_t code, uint32_t detail);

/* Changes the wire's rate on trial: wire_tick goes back unless a valid frame comes within 2 s. */
void wire_set_baud(uint32_t rate);
void wire_tick(void);

#endif
