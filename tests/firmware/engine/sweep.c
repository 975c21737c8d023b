/* engine_exp and engine_log over an array, because a call from Python for each value takes too long. */
#include "engine.h"

void sweep_exp(float *x, uint32_t count);
void sweep_log(float *x, uint32_t count);

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
