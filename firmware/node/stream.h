/* Samples that the host streams, each a transfer of its own (TRANSFER_SAMPLE): what a round does with them beside
 * samples.h. */
#ifndef STREAM_H
#define STREAM_H

#include "link/link.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

void stream_start(void); /* of a round */
/* SAMPLES, in this state of a round that `setup` began. False: refused, and answered. */
bool stream_expect(const struct link_frame *frame, uint8_t state, const struct message_setup *setup);
void stream_close(void); /* drop the transfer under way */

/* BEGIN of a sample in this state of the round: answered. */
void stream_begin(const struct link_frame *frame, const struct message_begin *begin, uint8_t state);
/* DATA and COMMIT of this transfer number are about the sample, not the weights. */
bool stream_owns(uint8_t transfer);
void stream_data(const struct link_frame *frame); /* answered */
/* COMMIT, with this MAC, in a round that `setup` began. False: refused, and answered. True: the sample is the next one,
 * and waits to be trained; or it is the last one again, which was trained. */
bool stream_commit(const struct link_frame *frame, const uint8_t *mac, const struct message_setup *setup, uint8_t state);

/* Whether a sample waits to be trained; it does no longer. */
bool stream_next(void);

#endif
