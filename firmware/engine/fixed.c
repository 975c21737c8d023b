/* Rounding, saturation and the inner loops of the fixed-point kernels. */
#include "fixed_inner.h"

uint16_t fixed_state = 1;
uint32_t fixed_saturated;

void fixed_seed(uint32_t seed)
{
    fixed_state = (uint16_t)(seed ^ seed >> 16);
    if (fixed_state == 0) { /* where xorshift would stay for ever */
        fixed_state = 1;
    }
}

static int16_t held(int32_t value)
{
    if (value > INT16_MAX || value < INT16_MIN) {
        fixed_saturated++;
        return value > 0 ? INT16_MAX : INT16_MIN;
    }
    return (int16_t)value;
}

int16_t fixed_rounded(int32_t value, int16_t exponent)
{
    if (value == 0 || exponent < -31) { /* beyond: below 2^-1 whatever the value, and never seen */
        return 0;
    }
    if (exponent <= 0) {
        return held(fixed_stochastic(value, (uint8_t)-exponent));
    }
    const uint8_t by = (uint8_t)(exponent < 16 ? exponent : 16);
    const int32_t limit = (int32_t)INT16_MAX + 1; /* one more is enough to be held, and cannot overflow */
    return held((value > limit ? limit : value < -limit ? -limit : value) * ((int32_t)1 << (by < 15 ? by : 15)));
}

void fixed_add(int16_t *w, int16_t delta)
{
    *w = held((int32_t)*w + delta);
}

int32_t fixed_start(const int16_t *bias, uint16_t channel, int16_t exponent)
{
    const int32_t limit = (int32_t)1 << 29;
    if (bias == NULL || exponent < -15) {
        return 0;
    }
    int32_t value = bias[channel];
    if (exponent <= 0) {
        return fixed_nearest(value, (uint8_t)-exponent);
    }
    for (; exponent > 0 && value < limit && value > -limit; exponent--) {
        value *= 2;
    }
    return value > limit ? limit : value < -limit ? -limit : value;
}

void fixed_halve(int8_t *at, uint16_t stride, uint32_t count)
{
    for (; count > 0; count--, at += stride) {
        *at = (int8_t)((*at + (int8_t)(fixed_random() & 1)) >> 1);
    }
}

#ifdef __AVR__ /* fixed_avr.S has these loops */
void fixed_update_span(int16_t *w, int8_t x, const int16_t *step, uint16_t count, uint8_t random);
#else
int32_t fixed_dot(const int8_t *x, const int16_t *w, uint16_t stride, uint16_t count)
{
    int32_t sum = 0;
    for (; count > 0; count--, x++, w += stride) {
        sum += (int32_t)*x * *w;
    }
    return sum;
}

int32_t fixed_dot_bytes(const int8_t *x, uint16_t x_stride, const int8_t *d, uint16_t d_stride, uint16_t count)
{
    int32_t sum = 0;
    for (; count > 0; count--, x += x_stride, d += d_stride) {
        sum += (int16_t)(*x * *d);
    }
    return sum;
}

static void fixed_update_span(int16_t *w, int8_t x, const int16_t *step, uint16_t count, uint8_t random)
{
    for (; count > 0; count--, w++, step++) {
        random = (uint8_t)(random + 157U);
        *w = held(*w + (((int32_t)x * *step + random) >> 8));
    }
}
#endif

void fixed_update_row(int16_t *w, int8_t x, const int16_t *step, uint16_t count)
{
    fixed_update_span(w, x, step, count, (uint8_t)fixed_random());
}
