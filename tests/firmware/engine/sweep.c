/* The engine's small functions over an array, because a call from Python for each value takes too long. */
#include "bits.h"
#include "engine.h"

void sweep_exp(float *x, uint32_t count);
void sweep_log(float *x, uint32_t count);
void sweep_pack(uint8_t *packed, const uint16_t *values, uint32_t count, uint16_t below);
void sweep_unpack(uint16_t *values, const uint8_t *packed, uint32_t count, uint16_t below);

void sweep_exp(float *x, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        x[i] = engine_exp(x[i]);
    }
}

void sweep_log(float *x, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        x[i] = engine_log(x[i]);
    }
}

void sweep_pack(uint8_t *packed, const uint16_t *values, uint32_t count, uint16_t below)
{
    for (uint32_t i = count; i-- > 0;) { /* backwards: what lies behind must stay */
        engine_packed_write(packed, engine_packed_bits(below), i, values[i]);
    }
}

void sweep_unpack(uint16_t *values, const uint8_t *packed, uint32_t count, uint16_t below)
{
    for (uint32_t i = 0; i < count; i++) {
        values[i] = engine_packed_read(packed, engine_packed_bits(below), i);
    }
}
