#include "encoding.h"

#include "engine/engine.h"
#include "hash.h"
#include "link/link.h"
#include "model.h"
#include "protocol.h"
#include "weights.h"

#include <string.h>

uint8_t encoding_supported(void)
{
    return 1U << ENCODING_WEIGHTS | (MODEL_KEEPS_ORIGIN ? 1U << ENCODING_DELTA_F32 | 1U << ENCODING_DELTA_Q8 : 0U);
}

bool encoding_is_supported(uint8_t encoding)
{
    return encoding < 8 && (encoding_supported() >> encoding & 1) != 0;
}

#if MODEL_KEEPS_ORIGIN

#define SCALE_BYTES 4
#define BLOCK_BYTES (SCALE_BYTES + PROTOCOL_Q8_BLOCK)
#define BLOCKS ((MODEL_PARAMETERS + PROTOCOL_Q8_BLOCK - 1) / PROTOCOL_Q8_BLOCK)
#define NO_BLOCK UINT32_MAX
#define FLOAT_NORMAL_MIN 1.17549435e-38f

static struct {
    uint32_t seed;
    uint32_t block; /* whose scale is below: chunks come in order, so it is rarely computed twice */
    float scale;
    uint8_t encoding;
} encoder;

static float difference(uint32_t index)
{
    return model_weights[index] - model_origin[index];
}

/// Float32 ///

static void read_float32(uint32_t offset, uint8_t length, uint8_t *out)
{
    while (length > 0) {
        const float value = difference(offset / 4);
        const uint8_t skip = offset % 4;
        const uint8_t left = (uint8_t)(4 - skip);
        const uint8_t take = length < left ? length : left;
        memcpy(out, (const uint8_t *)&value + skip, take);
        out += take;
        offset += take;
        length = (uint8_t)(length - take);
    }
}

/// Q8: blocks of int8 under a common scale ///

static float block_scale(uint32_t block)
{
    if (block != encoder.block) {
        const uint32_t begin = block * PROTOCOL_Q8_BLOCK;
        const uint32_t end = MODEL_PARAMETERS - begin < PROTOCOL_Q8_BLOCK ? MODEL_PARAMETERS : begin + PROTOCOL_Q8_BLOCK;
        float largest = 0.0f;
        for (uint32_t i = begin; i < end; i++) {
            const float value = difference(i);
            const float magnitude = value < 0.0f ? -value : value;
            if (magnitude > largest) {
                largest = magnitude;
            }
        }
        const float scale = largest / 127.0f;
        encoder.scale = scale < FLOAT_NORMAL_MIN ? 0.0f : scale;
        encoder.block = block;
    }
    return encoder.scale;
}

static int8_t quantise(uint32_t index, float scale)
{
    if (scale == 0.0f) {
        return 0;
    }
    const uint32_t random = hash32(encoder.seed ^ hash32(index + UINT32_C(0x9E3779B9))) >> 8;
    const float value = difference(index) / scale + (float)random * (1.0f / 16777216.0f);
    int16_t whole = (int16_t)value; /* towards zero */
    if ((float)whole > value) {
        whole--;
    }
    return (int8_t)(whole > 127 ? 127 : whole < -127 ? -127 : whole);
}

static void read_q8(uint32_t offset, uint8_t length, uint8_t *out)
{
    uint32_t block = offset / BLOCK_BYTES;
    uint16_t place = (uint16_t)(offset % BLOCK_BYTES);
    for (; length > 0; length--, out++) {
        const float scale = block_scale(block);
        if (place < SCALE_BYTES) {
            *out = ((const uint8_t *)&scale)[place];
        } else {
            *out = (uint8_t)quantise(block * PROTOCOL_Q8_BLOCK + place - SCALE_BYTES, scale);
        }
        if (++place == BLOCK_BYTES) {
            place = 0;
            block++;
        }
    }
}

static void read_difference(uint32_t offset, uint8_t length, uint8_t *out)
{
    if (encoder.encoding == ENCODING_DELTA_Q8) {
        read_q8(offset, length, out);
    } else {
        read_float32(offset, length, out);
    }
}

static bool begin_differences(uint8_t encoding, uint32_t seed, uint32_t *size, uint32_t *crc)
{
    encoder.seed = seed;
    encoder.block = NO_BLOCK;
    for (uint32_t i = 0; i < MODEL_PARAMETERS; i++) {
        if (!engine_is_finite(difference(i))) {
            return false;
        }
    }
    *size = encoding == ENCODING_DELTA_Q8 ? MODEL_PARAMETERS + BLOCKS * SCALE_BYTES : MODEL_PARAMETERS * 4;
    *crc = 0;
    for (uint32_t offset = 0; offset < *size;) {
        uint8_t piece[32];
        const uint32_t left = *size - offset;
        const uint8_t length = (uint8_t)(left < sizeof piece ? left : sizeof piece);
        read_difference(offset, length, piece);
        *crc = link_crc32(*crc, piece, length);
        offset += length;
    }
    return true;
}

#endif

/// Any of them ///

void encoding_read(uint32_t offset, uint8_t length, uint8_t *out)
{
#if MODEL_KEEPS_ORIGIN
    if (encoder.encoding != ENCODING_WEIGHTS) {
        read_difference(offset, length, out);
        return;
    }
#endif
    memcpy(out, weights_bytes() + offset, length);
}

bool encoding_begin(uint8_t encoding, uint32_t seed, uint32_t *size, uint32_t *crc)
{
#if MODEL_KEEPS_ORIGIN
    encoder.encoding = encoding;
    if (encoding != ENCODING_WEIGHTS) {
        return begin_differences(encoding, seed, size, crc);
    }
#else
    (void)encoding;
    (void)seed;
#endif
    *size = MODEL_WEIGHT_BYTES;
    *crc = link_crc32(0, weights_bytes(), MODEL_WEIGHT_BYTES);
    return weights_first_bad() == WEIGHTS_USABLE;
}
