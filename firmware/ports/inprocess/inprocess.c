/* A node, and the engine below it, as functions of a shared library: training.c on samples in the host's memory. */
#include "node/port.h"
#include "node/training.h"

#include <stddef.h>
#include <string.h>

static struct {
    const uint8_t *samples; /* [count][MODEL_FEATURES] */
    const uint16_t *labels;
    const uint8_t *proxy; /* [MODEL_PROXY][MODEL_FEATURES] */
    uint32_t count;
} shard;

uint32_t port_sample_count(void)
{
    return shard.count;
}

uint16_t port_proxy_count(void)
{
    return MODEL_PROXY;
}

const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    if (index >= shard.count) {
        *label = PROTOCOL_NO_LABEL;
        return shard.proxy + (size_t)(index - shard.count) * MODEL_FEATURES;
    }
    *label = shard.labels[index];
    return shard.samples + (size_t)index * MODEL_FEATURES;
}

bool inprocess_round(const uint8_t *samples, const uint16_t *labels, uint32_t count, const uint8_t *proxy,
                     const uint8_t *setup);
void inprocess_logits(uint8_t width, const uint8_t *samples, uint32_t count, float *logits);

/* Trains model_weights for a round, which a SETUP's payload describes; false if a loss was not finite. */
bool inprocess_round(const uint8_t *samples, const uint16_t *labels, uint32_t count, const uint8_t *proxy,
                     const uint8_t *setup)
{
    struct message_setup message;
    message_setup_read(setup, MESSAGE_SETUP_SIZE, &message);
    shard.samples = samples;
    shard.labels = labels;
    shard.count = count;
    shard.proxy = proxy;
    training_begin(&message);
    enum training_result result = TRAINING_GOING;
    while (result == TRAINING_GOING) {
        result = training_step();
    }
    return result == TRAINING_FINISHED;
}

static struct engine_sample sample_at(const uint8_t *samples, size_t index)
{
    struct engine_sample sample = { .bytes = samples + index * MODEL_FEATURES };
#if !MODEL_FIXED
    sample.scale = MODEL_INPUT_SCALE;
    sample.offset = MODEL_INPUT_OFFSET;
#endif
    return sample;
}

/* The logits of each sample, [count][MODEL_CLASSES]. */
void inprocess_logits(uint8_t width, const uint8_t *samples, uint32_t count, float *logits)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct engine_sample sample = sample_at(samples, i);
        model_forward(width, &sample);
        for (uint16_t c = 0; c < MODEL_CLASSES; c++) {
#if MODEL_FIXED
            logits[(size_t)i * MODEL_CLASSES + c] = (float)model_logits[c] / FIXED_LOGIT_ONE;
#else
            logits[(size_t)i * MODEL_CLASSES + c] = model_logits[c];
#endif
        }
    }
}

#if MODEL_ACCUMULATES
float inprocess_gradient(uint8_t width, const uint8_t *samples, uint32_t count, const float *soft, const float *weights,
                         float scale);

/* Adds scale * the gradient of the summed cross-entropy to model_gradients; soft: [count][MODEL_CLASSES]. */
float inprocess_gradient(uint8_t width, const uint8_t *samples, uint32_t count, const float *soft, const float *weights,
                         float scale)
{
    float loss = 0.0f;
    for (uint32_t i = 0; i < count; i++) {
        const struct engine_sample sample = sample_at(samples, i);
        const struct engine_target target = { 0, soft + (size_t)i * MODEL_CLASSES, NULL, weights[i], 1.0f };
        loss += model_backprop(width, &sample, &target, scale);
    }
    return loss;
}
#endif
