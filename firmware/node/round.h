/* One round on the board, from SETUP to the last chunk of the update. Every handler answers its frame with exactly one
 * frame of the same transfer id, and may be given the same request again at any time. */
#ifndef ROUND_H
#define ROUND_H

#include "link/link.h"

#include <stdbool.h>
#include <stdint.h>

void round_start(void);
bool round_is_idle(void); /* no round is under way, none waits to be fetched */

/* Length wrong: ERROR MALFORMED. */
void round_setup(const struct link_frame *frame);
void round_adjust(const struct link_frame *frame);
void round_samples(const struct link_frame *frame); /* only of a stream */
void round_begin(const struct link_frame *frame);
void round_data(const struct link_frame *frame);
void round_commit(const struct link_frame *frame);
void round_train(const struct link_frame *frame);
void round_fetch(const struct link_frame *frame);
void round_ack(const struct link_frame *frame);
void round_abort(const struct link_frame *frame);

void round_status(uint8_t transfer); /* send STATUS */
bool round_sum_some(void);           /* a little more of the checksum of the weights that arrive, if there is more */
bool round_send_chunk(void);         /* send the next chunk of the update, if one may be sent */
bool round_train_sample(void);       /* train one sample, if it is time to train; report at most twice a second */

#endif
