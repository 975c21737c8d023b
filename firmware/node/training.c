#define MODEL_IMPLEMENTATION /* this is the translation unit that defines the model */
#include "training.h"

#include "engine/engine.h"
#include "hash.h"
#include "samples.h"

#include <stdbool.h>
#include <string.h>

training_logit training_adjustment[MODEL_CLASSES];

static struct {
    const struct message_setup *setup;
    uint32_t position; /* in this epoch */
    uint32_t done;
    uint32_t sample;
    float loss;
    uint8_t epoch;
    uint8_t in_batch; /* samples whose gradients have been added since the last step */
} training;

uint32_t training_order(uint32_t seed, uint8_t epoch, uint32_t position, uint32_t count)
{
    uint8_t half = 0;
    while (half < 16 && (count - 1) >> (2 * half) != 0) {
        half++;
    }
    const uint32_t mask = (UINT32_C(1) << half) - 1;
    const uint32_t start = hash32(seed); /* neighbouring seeds must not share the orders of neighbouring epochs */
    do {
        uint32_t left = position >> half, right = position & mask;
        for (uint8_t round = 0; round < 4; round++) {
            const uint32_t key = hash32(start + UINT32_C(4) * epoch + round);
            const uint32_t mixed = left ^ (hash32(right ^ key) & mask);
            left = right;
            right = mixed;
        }
        position = left << half | right;
    } while (position >= count);
    return position;
}

void training_begin(const struct message_setup *setup)
{
    memset(&training, 0, sizeof training);
    training.setup = setup;
#if MODEL_ACCUMULATES
    memset(model_gradients, 0, sizeof model_gradients);
#endif
#if MODEL_FIXED
    model_begin();
    fixed_saturated = 0;
#endif
}

/* Forward, loss and backward at each width wanted; false if a loss is not finite. */
static bool backprop(const uint8_t *bytes, uint16_t label, float *loss)
{
    const struct message_setup *setup = training.setup;
#if MODEL_FIXED
    const struct engine_sample sample = {.bytes = bytes}; /* what they are worth is compiled in */
    const struct fixed_target target = {label, NULL, training_adjustment, 256};
    fixed_seed(hash32(setup->seed + training.done));
#else
    const struct engine_sample sample = {bytes, MODEL_INPUT_SCALE, MODEL_INPUT_OFFSET};
    const struct engine_target target = {label, NULL, training_adjustment, 1.0f, 1.0f};
#endif
    /* Without a gradient buffer each sample is a step of its own, so small that a batch of them is one step. */
    const float scale = MODEL_ACCUMULATES ? 1.0f : setup->learning_rate / (float)setup->batch;
    const uint8_t widths = setup->nested ? MODEL_WIDTHS : 1;
    for (uint8_t width = 0; width < widths; width++) {
        const float at_width = model_backprop(width, &sample, &target, scale);
        if (!engine_is_finite(at_width)) {
            return false;
        }
        if (width == 0) {
            *loss = at_width;
        }
    }
    return true;
}

#if MODEL_ACCUMULATES
/* A step once the batch is full; the last batch of an epoch may be smaller. */
static void step(bool epoch_ends)
{
    training.in_batch++;
    if (epoch_ends || training.in_batch == training.setup->batch) {
        model_update(training.setup->learning_rate / (float)training.in_batch, training.setup->momentum);
        training.in_batch = 0;
    }
}
#endif

enum training_result training_step(void)
{
    const struct message_setup *setup = training.setup;
    uint16_t label = 0;
    training.sample = training_order(setup->seed, training.epoch, training.position, samples_count());
    const uint8_t *bytes = samples_get(training.sample, &label);
    float loss = 0.0f;
    if (!backprop(bytes, label, &loss)) {
        return TRAINING_NOT_FINITE;
    }
    training.position++;
    training.done++;
    /* A running mean, not a sum: it stays exact enough however long the epoch is. */
    training.loss += (loss - training.loss) / (float)training.position;
    const bool epoch_ends = training.position == samples_count();
#if MODEL_ACCUMULATES
    step(epoch_ends);
#endif
    if (!epoch_ends) {
        return TRAINING_GOING;
    }
    training.epoch++;
    if (training.epoch == setup->epochs) {
        return TRAINING_FINISHED;
    }
    training.position = 0;
    training.loss = 0.0f;
    return TRAINING_GOING;
}

#if MODEL_FIXED
training_logit training_logit_of(float value)
{
    const float scaled = value * FIXED_LOGIT_ONE;
    if (scaled >= INT16_MAX || scaled <= -INT16_MAX) {
        return scaled > 0.0f ? INT16_MAX : -INT16_MAX;
    }
    return (int16_t)(scaled + (scaled < 0.0f ? -0.5f : 0.5f));
}

uint32_t training_saturated(void)
{
    return fixed_saturated;
}
#else
training_logit training_logit_of(float value)
{
    return value;
}

uint32_t training_saturated(void)
{
    return 0;
}
#endif

uint32_t training_done(void)
{
    return training.done;
}

uint32_t training_sample(void)
{
    return training.sample;
}

float training_loss(void)
{
    return training.loss;
}
