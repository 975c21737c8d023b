/* Elementwise: the activation, and the optimizer's step. */
#include "inner.h"

void engine_activate(float *x, uint16_t count, float slope)
{
    for (; count >= 4; count = (uint16_t)(count - 4), x += 4) {
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            x[i] = x[i] < 0.0f ? slope * x[i] : x[i];
        }
    }
    for (uint16_t i = 0; i < count; i++) {
        x[i] = x[i] < 0.0f ? slope * x[i] : x[i];
    }
}

void engine_update(float *weight, float *gradient, uint32_t count, float step, float momentum)
{
#if ENGINE_FLOAT_AVR
    engine_avr_axpy(weight, gradient, (uint16_t)count, -step);
    for (uint16_t i = 0; i < count; i++) {
        gradient[i] = engine_is_zero(momentum) ? 0.0f : momentum * gradient[i];
    }
#else
    for (; count >= 4; count -= 4, weight += 4, gradient += 4) {
        float stepped[4], kept[4];
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            stepped[i] = weight[i] - step * gradient[i];
            kept[i] = momentum == 0.0f ? 0.0f : momentum * gradient[i];
        }
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            weight[i] = stepped[i];
            gradient[i] = kept[i];
        }
    }
    for (uint8_t i = 0; i < count; i++) {
        weight[i] -= step * gradient[i];
        gradient[i] = momentum == 0.0f ? 0.0f : momentum * gradient[i];
    }
#endif
}

float engine_clip(const float *gradient, uint32_t count, float most)
{
    float square = 0.0f;
    for (uint32_t i = 0; i < count; i++) {
        square += gradient[i] * gradient[i];
    }
    if (!engine_is_finite(square) || !(square > most * most)) {
        return 1.0f;
    }
    return most * engine_exp(-0.5f * engine_log(square));
}
