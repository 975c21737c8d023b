/* The generated model alone, without the node: what tests/firmware/node/test_round.py trains by itself. */
#define MODEL_IMPLEMENTATION
#include "model.h"

const void *model_logits_at(void);

/* Of the last sample; they lie in the arena. */
const void *model_logits_at(void)
{
    return model_logits;
}
