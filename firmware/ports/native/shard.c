/* Samples from a shard file, mapped and never copied; a sensor replays it as its recording. All little-endian: "TFS2",
 * u32 samples, u32 proxy images, u32 features, u32 classes, u8 features[samples + proxy images][features],
 * u16 labels[samples]. */
#define _DEFAULT_SOURCE
#include "native.h"

#include "model.h"
#include "node/port.h"
#include "node/sensor.h"
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_BYTES 20U

static struct {
    const uint8_t *features, *labels;
    uint32_t samples, proxy;
} shard;

static uint32_t u32_at(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static uint16_t label_at(uint32_t index)
{
    const uint8_t *at = shard.labels + (size_t)index * 2;
    return (uint16_t)(at[0] | at[1] << 8);
}

static const uint8_t *map(const char *path, uint64_t *size)
{
    const int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) != 0) {
        native_fail("%s: cannot be read: %s", path, strerror(errno));
    }
    *size = (uint64_t)status.st_size;
    if (!S_ISREG(status.st_mode) || *size < HEADER_BYTES) {
        native_fail("%s: not a shard: expected a file of at least %u bytes", path, HEADER_BYTES);
    }
    const void *mapped = mmap(NULL, (size_t)*size, PROT_READ, MAP_PRIVATE, file, 0);
    if (mapped == MAP_FAILED) {
        native_fail("%s: cannot be mapped: %s", path, strerror(errno));
    }
    close(file);
    return mapped;
}

void native_open_shard(const char *path)
{
    uint64_t size;
    const uint8_t *bytes = map(path, &size);
    if (memcmp(bytes, "TFS2", 4) != 0) {
        native_fail("%s: not a shard: it does not begin with TFS2", path);
    }
    const uint32_t features = u32_at(bytes + 12), classes = u32_at(bytes + 16);
    shard.samples = u32_at(bytes + 4);
    shard.proxy = u32_at(bytes + 8);
    if (features != MODEL_FEATURES || classes != MODEL_CLASSES) {
        native_fail("%s: made for %" PRIu32 " features and %" PRIu32 " classes, this firmware's model has %lu and %d; "
                    "make the shards of this federation again or rebuild the firmware",
                    path, features, classes, (unsigned long)MODEL_FEATURES, MODEL_CLASSES);
    }
    const uint64_t images = (uint64_t)shard.samples + shard.proxy;
    const uint64_t expected = HEADER_BYTES + images * features + (uint64_t)shard.samples * 2U;
    if (size != expected) {
        native_fail("%s: %" PRIu64 " bytes, expected %" PRIu64 " for its %" PRIu32 " samples and %" PRIu32
                    " proxy images", path, size, expected, shard.samples, shard.proxy);
    }
    if (shard.proxy > UINT16_MAX || (!MODEL_SOURCE_STREAM && images < (uint64_t)shard.samples + MODEL_PROXY)) {
        native_fail("%s: %" PRIu32 " proxy images, expected %d to %d; make the shards of this federation again or "
                    "rebuild the firmware", path, shard.proxy, MODEL_PROXY, UINT16_MAX);
    }
    shard.features = bytes + HEADER_BYTES;
    shard.labels = shard.features + (size_t)images * features;
    for (uint32_t i = 0; i < shard.samples; i++) {
        if (label_at(i) >= classes) {
            native_fail("%s: sample %" PRIu32 " has label %u, expected less than %" PRIu32, path, i,
                        (unsigned)label_at(i), classes);
        }
    }
}

#if MODEL_SOURCE_SENSOR

static uint32_t recorded; /* samples of the recording that were captured */

void sensor_begin(void)
{
    recorded = 0;
}

bool sensor_capture(uint8_t *features, uint16_t *label)
{
    if (recorded == shard.samples) {
        return false;
    }
    memcpy(features, shard.features + (size_t)recorded * MODEL_FEATURES, MODEL_FEATURES);
    *label = label_at(recorded);
    recorded++;
    return true;
}

#endif

uint32_t port_sample_count(void)
{
    return shard.samples;
}

uint16_t port_proxy_count(void)
{
    return (uint16_t)shard.proxy;
}

const uint8_t *port_sample(uint32_t index, uint16_t *label)
{
    *label = index < shard.samples ? label_at(index) : PROTOCOL_NO_LABEL;
    return shard.features + (size_t)index * MODEL_FEATURES;
}
