/* The model's weights as they lie in memory and travel, whichever arithmetic the model has. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include <stdint.h>

#define WEIGHTS_USABLE UINT32_MAX

uint8_t *weights_bytes(void); /* [MODEL_WEIGHT_BYTES] */

/* The first weight that is NaN or infinite; in fixed point the first tensor whose exponent is beyond the limit.
 * WEIGHTS_USABLE if there is none. */
uint32_t weights_first_bad(void);

#endif
