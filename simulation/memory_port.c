/* A port in memory: whoever loaded the node feeds bytes, takes bytes, and turns the clock. */
#include "model.h"
#include "node/node.h"
#include "node/port.h"
#include "node/sensor.h"
#include "node/training.h"
#include "protocol.h"

#include <string.h>

#define QUEUE_BYTES 65536U
#define FEATURES_MAX 256U

struct queue {
    uint8_t bytes[QUEUE_BYTES];
    uint32_t head, tail;
};

static struct queue to_node, from_node;
static const uint8_t *features;
static const uint16_t *labels;
static uint32_t samples, feature_count, clock_ms, rate, boot;
static uint8_t identity[8] = "memory!";
static uint8_t key[32];
static bool keyed;
static uint32_t captured, recorded; /* by the sensor: samples given out, and those that there are */

void memory_boot(const uint8_t *features_in, const uint16_t *labels_in, uint32_t samples_in, uint32_t feature_count_in);
void memory_push(const uint8_t *bytes, uint32_t count);
uint32_t memory_pull(uint8_t *out, uint32_t room);
uint32_t memory_waiting(void);
void memory_advance(uint32_t milliseconds);
uint32_t memory_rate(void);
void memory_record(uint32_t count);
void memory_identify(const uint8_t id[8], uint32_t boot_id);
bool memory_run(uint32_t milliseconds, const uint8_t *bytes, uint32_t count);
void memory_key(const uint8_t *bytes);

static void put(struct queue *queue, const uint8_t *bytes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        queue->bytes[queue->tail++ % QUEUE_BYTES] = bytes[i];
    }
}

static uint32_t take(struct queue *queue, uint8_t *out, uint32_t room)
{
    uint32_t count = 0;
    while (count < room && queue->head != queue->tail) {
        out[count++] = queue->bytes[queue->head++ % QUEUE_BYTES];
    }
    return count;
}

/// What the host calls ///

void memory_boot(const uint8_t *features_in, const uint16_t *labels_in, uint32_t samples_in, uint32_t feature_count_in)
{
    memset(&to_node, 0, sizeof to_node);
    memset(&from_node, 0, sizeof from_node);
    features = features_in;
    labels = labels_in;
    samples = samples_in;
    feature_count = feature_count_in;
    clock_ms = UINT32_MAX - 700; /* it wraps early on */
    rate = 0;
    captured = recorded = 0;
    boot++;
}

void memory_push(const uint8_t *bytes, uint32_t count)
{
    put(&to_node, bytes, count);
}

uint32_t memory_pull(uint8_t *out, uint32_t room)
{
    return take(&from_node, out, room);
}

/* Bytes the node has not read yet. */
uint32_t memory_waiting(void)
{
    return to_node.tail - to_node.head;
}

void memory_advance(uint32_t milliseconds)
{
    clock_ms += milliseconds;
}

uint32_t memory_rate(void)
{
    return rate;
}

/* The sensor has so many of the samples to give, from the first on, over and over. */
void memory_record(uint32_t count)
{
    recorded = count;
}

/* Who it is, and its boot id until memory_boot. */
void memory_identify(const uint8_t id[8], uint32_t boot_id)
{
    memcpy(identity, id, sizeof identity);
    boot = boot_id;
}

/* At this time since boot these bytes arrive: turn the node until it waits (false) or has trained a sample (true). */
bool memory_run(uint32_t milliseconds, const uint8_t *bytes, uint32_t count)
{
    clock_ms = milliseconds;
    put(&to_node, bytes, count);
    for (;;) {
        const uint32_t before = training_done();
        if (!node_poll()) {
            return false;
        }
        if (training_done() != before) {
            return true;
        }
    }
}

/* From the next boot on; NULL: none. Only a node built with NODE_KEYED asks for it. */
void memory_key(const uint8_t *bytes)
{
    keyed = bytes != NULL;
    if (keyed) {
        memcpy(key, bytes, sizeof key);
    }
}

/// What the node calls ///

#if MODEL_SOURCE_SENSOR
void sensor_begin(void)
{
    captured = 0;
}

bool sensor_capture(uint8_t *features_out, uint16_t *label)
{
    if (captured == recorded) {
        return false;
    }
    const uint32_t index = captured++ % samples;
    memcpy(features_out, features + (uint32_t)(index * feature_count), feature_count);
    *label = labels[index];
    return true;
}
#endif

int16_t port_read(void)
{
    uint8_t byte;
    return take(&to_node, &byte, 1) == 1 ? (int16_t)byte : (int16_t)-1;
}

void port_write(const uint8_t *data, uint16_t length)
{
    put(&from_node, data, length);
}

uint32_t port_milliseconds(void)
{
    return clock_ms;
}

void port_identity(uint8_t id[8])
{
    memcpy(id, identity, sizeof identity);
}

uint32_t port_boot_id(void)
{
    return boot;
}

bool port_baud_supported(uint32_t baud)
{
    return baud == LINK_BAUD || baud == LINK_BAUD_MAX;
}

void port_set_baud(uint32_t baud)
{
    rate = baud;
}

uint32_t port_sample_count(void)
{
    return samples;
}

/* Behind the samples, always. */
uint16_t port_proxy_count(void)
{
    return MODEL_PROXY;
}

/* Through one buffer, as on a board that copies samples out of flash: only the last one is valid. */
const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    static uint8_t sample[FEATURES_MAX];
    memcpy(sample, features + (uint32_t)(index * feature_count), feature_count);
    *label = index < samples ? labels[index] : PROTOCOL_NO_LABEL;
    return sample;
}

bool port_key(uint8_t out[32])
{
    memcpy(out, key, sizeof key);
    return keyed;
}
