/* A node's own training as functions of a shared library: firmware/node/training.c on samples in memory. */
#include "node/port.h"
#include "node/training.h"

#include <stddef.h>

static struct {
    const uint8_t *samples; /* [count][MODEL_FEATURES] */
    const uint16_t *labels;
    uint32_t count;
} shard;

uint32_t port_sample_count(void)
{
    return shard.count;
}

uint16_t port_proxy_count(void)
{
    return 0;
}

const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    *label = shard.labels[index];
    return shard.samples + (size_t)index * MODEL_FEATURES;
}

bool node_round(const uint8_t *samples, const uint16_t *labels, uint32_t count, uint32_t seed, float learning_rate,
                uint8_t epochs, uint8_t batch, uint8_t nested);
void node_classify(uint8_t width, const uint8_t *samples, uint32_t count, uint16_t *classes);

/* Trains model_weights for a round; false if a loss was not finite. */
bool node_round(const uint8_t *samples, const uint16_t *labels, uint32_t count, uint32_t seed, float learning_rate,
                uint8_t epochs, uint8_t batch, uint8_t nested)
{
    const struct message_setup setup = {
        .seed = seed, .learning_rate = learning_rate, .epochs = epochs, .batch = batch, .nested = nested
    };
    shard.samples = samples;
    shard.labels = labels;
    shard.count = count;
    training_begin(&setup);
    enum training_result result = TRAINING_GOING;
    while (result == TRAINING_GOING) {
        result = training_step();
    }
    return result == TRAINING_FINISHED;
}

/* The class of the largest logit of each sample. */
void node_classify(uint8_t width, const uint8_t *samples, uint32_t count, uint16_t *classes)
{
    for (uint32_t i = 0; i < count; i++) {
        struct engine_sample sample = { .bytes = samples + (size_t)i * MODEL_FEATURES };
        uint16_t largest = 0;
#if !MODEL_FIXED
        sample.scale = MODEL_INPUT_SCALE;
        sample.offset = MODEL_INPUT_OFFSET;
#endif
        model_forward(width, &sample);
        for (uint16_t c = 1; c < MODEL_CLASSES; c++) {
            largest = model_logits[c] > model_logits[largest] ? c : largest;
        }
        classes[i] = largest;
    }
}
