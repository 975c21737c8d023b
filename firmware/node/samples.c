#include "samples.h"

#include "port.h"
#include "protocol.h"

#include <string.h>

/* By a walk over the samples: no table of them in RAM. The host knows those that it streams. */
void samples_count_labels(uint16_t first, uint8_t count, uint8_t *counts)
{
    memset(counts, 0, 2U * count);
    const uint32_t samples = count > 0 && !MODEL_SOURCE_STREAM ? samples_count() : 0;
    for (uint32_t i = 0; i < samples; i++) {
        uint16_t label = 0;
        samples_get(i, &label);
        const uint16_t place = (uint16_t)(label - first); /* labels below `first` wrap to the far end */
        if (place < count) {
            const uint16_t so_far = protocol_get_u16(counts + 2 * place);
            protocol_put_u16(counts + 2 * place, so_far == UINT16_MAX ? so_far : (uint16_t)(so_far + 1));
        }
    }
}

#if MODEL_PROXY > 0 && !MODEL_SOURCE_STREAM
uint16_t samples_proxies(void)
{
    return port_proxy_count() < MODEL_PROXY ? 0 : MODEL_PROXY;
}
#else
uint16_t samples_proxies(void)
{
    return MODEL_PROXY;
}
#endif

#if MODEL_SOURCE_FLASH

void samples_start(void) {}

uint32_t samples_count(void)
{
    return port_sample_count();
}

const uint8_t *samples_get(uint32_t index, uint16_t *label)
{
    return port_sample(index, label);
}

#elif MODEL_SOURCE_SENSOR

#include "sensor.h"

static struct {
    uint32_t count;
    uint32_t next; /* where the next sample goes; at the oldest once the ring is full */
} ring;

/* What the sensor has at once is taken at once, so that a recording that is replayed is there before anybody asks. */
void samples_start(void)
{
    ring.count = ring.next = 0;
    sensor_begin();
    for (uint32_t i = 0; i < MODEL_SAMPLES && samples_capture(); i++) {
    }
}

/* The slot was written to, and holds no sample now: the last one moves there. */
static void discard(void)
{
    if (ring.next < ring.count) {
        const uint32_t last = --ring.count;
        memmove(model_samples[ring.next], model_samples[last], MODEL_FEATURES);
        model_labels[ring.next] = model_labels[last];
        ring.next = last;
    }
}

bool samples_capture(void)
{
    uint16_t label = 0;
    if (!sensor_capture(model_samples[ring.next], &label)) {
        return false;
    }
    if (label >= MODEL_CLASSES) {
        discard();
        return true;
    }
    model_labels[ring.next] = label;
    if (ring.count < MODEL_SAMPLES) {
        ring.count++;
    }
    ring.next = ring.next + 1 == MODEL_SAMPLES ? 0 : ring.next + 1;
    return true;
}

uint32_t samples_count(void)
{
    return ring.count;
}

const uint8_t *samples_get(uint32_t index, uint16_t *label)
{
#if MODEL_PROXY > 0
    if (index >= ring.count) {
        return port_sample(port_sample_count() + index - ring.count, label);
    }
#endif
    *label = model_labels[index];
    return model_samples[index];
}

#endif
