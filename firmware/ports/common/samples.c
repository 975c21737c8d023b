/* Samples from flash: the shard that the build generates, shard.h; without one there are none. A port with samples of
 * its own defines these three functions, which stand back for it. */
#include "model.h"
#include "node/port.h"
#include "shard_place.h"

#include <stddef.h>
#ifdef __AVR__
#include <avr/pgmspace.h>
#endif

#define DEFAULT __attribute__((weak))

#if !defined(SHARD_SAMPLES)

/* noinline: link-time optimisation would see that there is nothing to train on, and leave training out of the image. */
DEFAULT __attribute__((noinline, noclone)) uint32_t port_sample_count(void)
{
    return 0;
}

DEFAULT uint16_t port_proxy_count(void)
{
    return 0;
}

DEFAULT const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    (void)index;
    *label = 0;
    return NULL;
}

#else

#if SHARD_FEATURES != MODEL_FEATURES || SHARD_CLASSES != MODEL_CLASSES
#error "TIERFED_SHARD has samples for another model: a run of this federation leaves one of each node in its shards/"
#endif
#if !MODEL_SOURCE_STREAM && SHARD_PROXY < MODEL_PROXY
#error "TIERFED_SHARD has too few proxy images: a run of this federation leaves one of each node in its shards/"
#endif

DEFAULT uint32_t port_sample_count(void)
{
    return SHARD_SAMPLES;
}

DEFAULT uint16_t port_proxy_count(void)
{
    return SHARD_PROXY;
}

#if defined(__AVR__)

extern const uint8_t shard_features[];
extern const uint16_t shard_labels[];

#if defined(RAMPZ)
/* RAMPZ holds the upper bits of the sample's address until the next call: nothing but the engine reads so far up. */
DEFAULT const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    *label = pgm_read_word_far(pgm_get_far_address(shard_labels) + 2 * index);
    const uint32_t at = pgm_get_far_address(shard_features) +
                        index / SHARD_BLOCK_SAMPLES * SHARD_BLOCK + index % SHARD_BLOCK_SAMPLES * SHARD_FEATURES;
    RAMPZ = (uint8_t)(at >> 16);
    return (const uint8_t *)(uint16_t)at;
}
#else
DEFAULT const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    *label = pgm_read_word(shard_labels + index);
    return shard_features + index * SHARD_FEATURES;
}
#endif

#else

#define SHARD_ROW(label, ...) {__VA_ARGS__},
static const uint8_t features[SHARD_SAMPLES + SHARD_PROXY][SHARD_FEATURES] = {
#include "shard.h"
};
#undef SHARD_ROW
#define SHARD_ROW(label, ...) label,
static const uint16_t labels[SHARD_SAMPLES + SHARD_PROXY] = {
#include "shard.h"
};

DEFAULT const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    *label = labels[index];
    return features[index];
}

#endif
#endif
