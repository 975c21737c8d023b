/* Local training: one sample a call, so that the link is served between samples. */
#ifndef TRAINING_H
#define TRAINING_H

#include "model.h"
#include "protocol.h"

#include <stdbool.h>
#include <stdint.h>

enum training_result {
    TRAINING_GOING,
    TRAINING_FINISHED,
    TRAINING_NOT_FINITE, /* loss or weights are NaN or infinite: training_sample() says at which sample */
};

/* A logit as the model's arithmetic has it. */
#if MODEL_FIXED
typedef int16_t training_logit; /* in 1 / FIXED_LOGIT_ONE */
#else
typedef float training_logit;
#endif
training_logit training_logit_of(float value); /* finite; in fixed point rounded to nearest, held within 16 bits */

/* Added to the logits in the loss; zero unless ADJUST said otherwise. */
extern training_logit training_adjustment[MODEL_CLASSES];

/* Start on model_weights as they are. `setup` must stay in place and unchanged until training ends; its epochs and
 * batch must not be 0, and there must be samples. */
void training_begin(const struct message_setup *setup);
/* One sample at every width wanted; where the plan has a gradient buffer, a step at the end of every batch. */
enum training_result training_step(void);

bool training_rehearses_next(void); /* of a stream: the next turn is a proxy image's */

/* Turns of an epoch: the node's own samples, and the proxy images as often as they are rehearsed. */
uint32_t training_epoch_length(const struct message_setup *setup);
uint32_t training_done(void);      /* samples so far, all epochs */
uint32_t training_sample(void);    /* the last one trained on */
float training_loss(void);         /* running mean of this epoch at the node's own width */
uint32_t training_saturated(void); /* times that a fixed-point weight or logit was held at its limit */

/* Sample at `position` of an epoch's order, both < count: a permutation of 0..count - 1 that takes no memory.
 *
 * A Feistel network of four rounds (Luby and Rackoff 1988) on the smallest even number of bits that holds count - 1;
 * results past the end are enciphered again ("cycle walking": Black and Rogaway, Ciphers with Arbitrary Finite
 * Domains, 2002). With h half of the bits and mask = 2^h - 1, in 32-bit arithmetic:
 *   left = position >> h, right = position & mask; for r = 0..3:
 *   left, right = right, left ^ (hash32(right ^ hash32(hash32(seed) + 4 * epoch + r)) & mask);
 *   position = left << h | right
 */
uint32_t training_order(uint32_t seed, uint8_t epoch, uint32_t position, uint32_t count);

#endif
