/* How the engine reads what it computes with: activations, samples, weights, and the bits of a float. Private to
 * firmware/engine. */
#ifndef ENGINE_SOURCE_H
#define ENGINE_SOURCE_H

#include "engine.h"
#include "float_avr.h"
#include "inline.h"

#include <stddef.h>
#include <string.h>

#if defined(__AVR__)
#include <avr/pgmspace.h>
#endif

/* Byte `i` of a sample; a port whose samples lie in a memory of their own defines ENGINE_SAMPLES_IN_FLASH. Where flash is
 * larger than 64 KB the port sets RAMPZ for the sample: ELPM then takes as long as LPM, a far pointer would not. */
#if defined(__AVR__) && defined(ENGINE_SAMPLES_IN_FLASH)
#ifdef RAMPZ
static ENGINE_INLINE uint8_t engine_flash_byte(const uint8_t *at)
{
    uint8_t byte;
    __asm__ volatile("elpm %0, Z" : "=r"(byte) : "z"(at));
    return byte;
}
#define ENGINE_SAMPLE_READ(bytes, i) engine_flash_byte((bytes) + (i))
#else
#define ENGINE_SAMPLE_READ(bytes, i) pgm_read_byte((bytes) + (i))
#endif
#else
#define ENGINE_SAMPLE_READ(bytes, i) ((bytes)[i])
#endif

/* The place of an element among a layer's. An AVR, whose data and samples 16 bits reach, needs no more for it. */
#ifdef __AVR__
typedef uint16_t engine_offset;
#else
typedef uint32_t engine_offset;
#endif

/* A weight; those of frozen layers lie in an AVR's flash (flash.h). */
static ENGINE_INLINE float engine_weight(const float *at, bool in_flash)
{
#if defined(__AVR__)
    return in_flash ? pgm_read_float(at) : *at;
#else
    (void)in_flash;
    return *at;
#endif
}

/* A layer's input: activations, or a sample still in bytes; and where its weights are. */
struct engine_source {
    bool is_sample, weights_in_flash;
    const float *values;
    const struct engine_sample *sample;
};

static ENGINE_INLINE struct engine_source engine_values(const float *values)
{
    return (struct engine_source){ false, false, values, NULL };
}

static ENGINE_INLINE struct engine_source engine_bytes(const struct engine_sample *sample)
{
    return (struct engine_source){ true, false, NULL, sample };
}

/* The same input to a layer whose weights lie in flash. */
static ENGINE_INLINE struct engine_source engine_frozen(struct engine_source from)
{
    from.weights_in_flash = true;
    return from;
}

static ENGINE_INLINE float engine_read(struct engine_source from, engine_offset i)
{
    if (from.is_sample) {
#if ENGINE_FLOAT_AVR
        return engine_avr_sample(ENGINE_SAMPLE_READ(from.sample->bytes, i), from.sample->scale, from.sample->offset);
#else
        return (float)ENGINE_SAMPLE_READ(from.sample->bytes, i) * from.sample->scale + from.sample->offset;
#endif
    }
    return from.values[i];
}

static ENGINE_INLINE uint32_t engine_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static ENGINE_INLINE float engine_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* x == 0 and x > 0; on AVR without a call of soft float. */
static ENGINE_INLINE bool engine_is_zero(float x)
{
#ifdef __AVR__
    return (engine_bits(x) & (uint32_t)0x7fffffff) == 0;
#else
    return x == 0.0f;
#endif
}

static ENGINE_INLINE bool engine_is_positive(float x)
{
#ifdef __AVR__
    return (int32_t)engine_bits(x) > 0;
#else
    return x > 0.0f;
#endif
}

#endif
