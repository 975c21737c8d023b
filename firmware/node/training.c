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
#if MODEL_PROXY > 0
    uint32_t own; /* of them, the node's own samples */
#endif
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

uint32_t training_epoch_length(const struct message_setup *setup)
{
    return samples_count() + (uint32_t)setup->rehearsals * MODEL_PROXY;
}

#if MODEL_PROXY > 0
#if MODEL_FIXED
static uint16_t soft[MODEL_CLASSES];
#else
static float soft[MODEL_CLASSES];
#endif

/* Unpack the soft targets of a proxy image; returns what it counts, the square of the largest: an ensemble that is not
 * sure teaches little. */
static float rehearse(uint32_t proxy)
{
    const uint8_t *target = model_targets[proxy];
    uint8_t largest = 0;
    for (uint16_t c = 0; c < MODEL_CLASSES; c++) {
#if MODEL_FIXED
        soft[c] = (uint16_t)((uint32_t)target[c] * (2 * FIXED_SHARE_ONE / UINT8_MAX + 1) >> 1);
#else
        soft[c] = (float)target[c] * (1.0f / UINT8_MAX);
#endif
        largest = target[c] > largest ? target[c] : largest;
    }
    const float sure = (float)largest * (1.0f / UINT8_MAX);
    return sure * sure;
}
#endif

#if MODEL_SHIFTS
/* The image moved by up to `shift` pixels both ways, drawn anew each time; what comes in is byte 0. */
static const uint8_t *shifted(const uint8_t *bytes, uint8_t shift)
{
    const uint32_t draw = hash32(hash32(training.setup->seed) ^ training.done);
    const uint16_t span = (uint16_t)(2 * shift + 1);
    const int16_t down = (int16_t)((int16_t)((draw & UINT16_MAX) % span) - shift);
    const int16_t right = (int16_t)((int16_t)((draw >> 16) % span) - shift);
    const uint16_t from_column = (uint16_t)(right < 0 ? -right : 0), to_column = (uint16_t)(right > 0 ? right : 0);
    const uint16_t lost = (uint16_t)(from_column + to_column);
    memset(model_shifted, 0, sizeof model_shifted);
    for (uint16_t row = 0; lost < MODEL_COLUMNS && row < MODEL_ROWS; row++) {
        const uint16_t from = (uint16_t)(row - down); /* what is above the first row wraps to the far end */
        if (from < MODEL_ROWS) {
            memcpy(model_shifted + ((size_t)row * MODEL_COLUMNS + to_column) * MODEL_DEPTH,
                   bytes + ((size_t)from * MODEL_COLUMNS + from_column) * MODEL_DEPTH,
                   (size_t)(MODEL_COLUMNS - lost) * MODEL_DEPTH);
        }
    }
    return model_shifted;
}
#endif

/* Forward, loss and backward at each width wanted; false if a loss is not finite. */
static bool backprop(uint32_t index, float *loss)
{
    const struct message_setup *setup = training.setup;
    uint16_t label = 0;
    const uint8_t *bytes = samples_get(index, &label);
    float weight = 1.0f;
#if MODEL_SHIFTS
    if (setup->shift > 0) {
        bytes = shifted(bytes, setup->shift);
    }
#endif
#if MODEL_FIXED
    const struct engine_sample sample = {.bytes = bytes}; /* what they are worth is compiled in */
    struct fixed_target target = {label, NULL, training_adjustment, 256};
    fixed_seed(hash32(setup->seed + training.done));
#else
    const struct engine_sample sample = {bytes, MODEL_INPUT_SCALE, MODEL_INPUT_OFFSET};
    struct engine_target target = {label, NULL, training_adjustment, 1.0f, 1.0f};
#endif
#if MODEL_PROXY > 0
    if (index >= samples_count()) {
        weight = rehearse(index - samples_count());
        target.soft = soft;
        target.adjustment = NULL; /* the proxy images are not of the node's labels */
    }
#endif
    /* Without a gradient buffer each sample is a step of its own, so small that a batch of them is one step. */
    const float scale = weight * (MODEL_ACCUMULATES ? 1.0f : setup->learning_rate / (float)setup->batch);
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
        const struct message_setup *setup = training.setup;
        const float samples = (float)training.in_batch;
        float rate = setup->learning_rate / samples;
        if (setup->max_norm > 0.0f) {
            rate *= engine_clip(model_gradients, MODEL_PARAMETERS, setup->max_norm * samples);
        }
        model_update(rate, setup->momentum);
        training.in_batch = 0;
    }
}
#endif

/* Of the node's own samples: a running mean, not a sum, stays exact enough however long the epoch is. */
static void count_loss(float loss)
{
#if MODEL_PROXY > 0
    if (training.sample >= samples_count()) {
        return;
    }
    const uint32_t count = ++training.own;
#else
    const uint32_t count = training.position;
#endif
    training.loss += (loss - training.loss) / (float)count;
}

/* Whose turn is next: one of the node's own samples or, behind them, a proxy image. */
static uint32_t next_sample(void)
{
    const struct message_setup *setup = training.setup;
    const uint32_t length = training_epoch_length(setup);
    const uint32_t turn = training_order(setup->seed, training.epoch, training.position, length);
#if MODEL_PROXY > 0
    const uint32_t own = samples_count();
    return turn < own ? turn : own + (turn - own) % MODEL_PROXY;
#else
    return turn;
#endif
}

#if MODEL_PROXY > 0 && MODEL_SOURCE_STREAM
bool training_rehearses_next(void)
{
    return next_sample() >= samples_count();
}
#endif

enum training_result training_step(void)
{
    const struct message_setup *setup = training.setup;
    training.sample = next_sample();
    float loss = 0.0f;
    if (!backprop(training.sample, &loss)) {
        return TRAINING_NOT_FINITE;
    }
    training.position++;
    training.done++;
    count_loss(loss);
    const bool epoch_ends = training.position == training_epoch_length(setup);
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
#if MODEL_PROXY > 0
    training.own = 0;
#endif
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
