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

int32_t fixed_sloped(int32_t x, uint16_t slope)
{
    const int16_t high = (int16_t)(x >> 16);
    const uint16_t low = (uint16_t)x;
    return slope == FIXED_LINEAR ? x : (int32_t)high * slope + (int32_t)((uint32_t)low * slope >> 16);
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
int32_t fixed_dot(const int8_t *x, const int16_t *w, const struct fixed_walk *walk)
{
    int32_t sum = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, w += walk->w_skip) {
        for (uint16_t left = walk->count; left > 0; left--, x++, w += walk->w_stride) {
            sum += (int32_t)*x * *w;
        }
    }
    return sum;
}

int32_t fixed_dot_bytes(const int8_t *x, const int8_t *d, const struct fixed_walk *walk)
{
    int32_t sum = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, d += walk->w_skip) {
        for (uint16_t left = walk->count; left > 0; left--, x += walk->x_stride, d += walk->w_stride) {
            sum += (int16_t)(*x * *d);
        }
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

int32_t fixed_long_dot(const int8_t *x, const int16_t *w, const struct fixed_walk *walk, uint8_t lost)
{
    int32_t sum = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, w += walk->w_skip) {
        struct fixed_walk piece = { .rows = 1, .w_stride = walk->w_stride };
        for (uint16_t left = walk->count; left > 0; left = (uint16_t)(left - piece.count)) {
            piece.count = left < 256 ? left : 256;
            sum += fixed_dot(x, w, &piece) >> lost;
            x += piece.count;
            w += (size_t)piece.count * walk->w_stride;
        }
    }
    return sum;
}
