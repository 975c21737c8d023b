/* Soft targets of the proxy images that the node holds, a transfer (TRANSFER_TARGETS) behind the weights: what a round
 * does with them. None of it is compiled where MODEL_PROXY is 0. */
#ifndef TARGETS_H
#define TARGETS_H

#include "link/link.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

void targets_start(void); /* of a round, or of another one's weights */

/* BEGIN of targets in this state of the round: answered. */
void targets_begin(const struct link_frame *frame, const struct message_begin *begin, uint8_t state);
/* DATA and COMMIT of this transfer number are about the targets. */
bool targets_owns(uint8_t transfer);
void targets_release(uint8_t transfer); /* the number is another transfer's from here on */
void targets_data(const struct link_frame *frame); /* answered */
/* COMMIT, with this MAC, in a round that `setup` began. False: refused, and answered. */
bool targets_commit(const struct link_frame *frame, const uint8_t *mac, const struct message_setup *setup);

bool targets_are_here(void);
bool targets_sum_some(size_t most); /* of what has arrived; false if there is nothing to sum */
uint32_t targets_crc(void);         /* of those that are here; 0 if none are */

#endif
