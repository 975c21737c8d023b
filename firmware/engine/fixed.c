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

int16_t fixed_rounded(int32_t value, int16_t exponent)
{
    if (value == 0 || exponent < -31) { /* beyond: below 2^-1 whatever the value, and never seen */
        return 0;
    }
    if (exponent <= 0) {
        value = fixed_stochastic(value, (uint8_t)-exponent);
    } else if (exponent > 15 || value > INT16_MAX || value < INT16_MIN) {
        value = value > 0 ? INT32_MAX : INT32_MIN;
    } else {
        value = (int32_t)((uint32_t)value << exponent);
    }
    if (value > INT16_MAX || value < INT16_MIN) {
        fixed_saturated++;
        return value > 0 ? INT16_MAX : INT16_MIN;
    }
    return (int16_t)value;
}

void fixed_add(int16_t *w, int16_t delta)
{
    const int16_t sum = (int16_t)((uint16_t)*w + (uint16_t)delta);
    if (((*w ^ sum) & (delta ^ sum)) < 0) { /* both signs differ from the sum's: it wrapped */
        fixed_saturated++;
        *w = delta > 0 ? INT16_MAX : INT16_MIN;
    } else {
        *w = sum;
    }
}

struct fixed_sums fixed_sums(int8_t in_exponent, const struct fixed_weights *weights, uint32_t terms)
{
    const int16_t products = (int16_t)(in_exponent + weights->kernel_exponent);
    const int16_t least = (int16_t)(weights->bias_exponent - FIXED_BIAS_SHIFT - products);
    int16_t lost = fixed_lost(terms);
    if (weights->bias != NULL && least > lost) {
        lost = least;
    }
    return (struct fixed_sums){
        .exponent = (int16_t)(products + lost),
        .bias_exponent = (int16_t)(weights->bias_exponent - products - lost),
        .lost = (uint8_t)(lost < 31 ? lost : 31),
    };
}

int8_t fixed_exponent(int16_t exponent)
{
    const int16_t most = FIXED_FARTHEST;
    return (int8_t)(exponent < -most ? -most : exponent > most ? most : exponent);
}

int32_t fixed_start(const int16_t *bias, uint16_t channel, int16_t exponent, bool in_flash)
{
    if (bias == NULL || exponent < -15) { /* below half a last place, whatever the bias */
        return 0;
    }
    if (exponent <= 0) {
        return fixed_nearest(fixed_weight(bias + channel, in_flash), (uint8_t)-exponent);
    }
    uint32_t value = (uint32_t)fixed_weight(bias + channel, in_flash);
    if (exponent >= 8) { /* by a byte, which an 8-bit core need not shift */
        value <<= 8;
    }
    return (int32_t)(value << (exponent & 7));
}

int8_t fixed_read(int8_t *to, const struct fixed_input *in, size_t from, size_t count)
{
    const uint8_t *byte = in->bytes + from;
    const int8_t *const table = in->table, *const end = to + count;
    int8_t any = 0;
    for (; to != end; to++, byte++) {
        *to = (int8_t)ENGINE_FLASH_U8(table[ENGINE_SAMPLE_READ(byte, 0)]);
        any |= *to;
    }
    return any;
}

void fixed_halve(int8_t *at, uint16_t stride, uint32_t count)
{
    for (; count > 0; count--, at += stride) {
        *at = (int8_t)((*at + (int8_t)(fixed_random() & 1)) >> 1);
    }
}

void fixed_put(int8_t *at, uint32_t i, int32_t sum, struct fixed_scale *scale)
{
    int32_t value;
    while (!fixed_fits(scale, value = fixed_stochastic(sum, scale->shift))) {
        fixed_halve(at, 1, i);
    }
    at[i] = (int8_t)value;
}

#ifndef __AVR_HAVE_MUL__ /* fixed_avr.S and fixed_avr_step.S have all of these */
int32_t fixed_nearest(int32_t x, uint8_t n)
{
    return n == 0 ? x : ((x >> (n - 1)) + 1) >> 1;
}

int32_t fixed_stochastic(int32_t x, uint8_t n)
{
    const uint16_t random = fixed_random();
    if (n >= 16) {
        return ((x >> (n - 16)) + (int32_t)random) >> 16;
    }
    return (x + (int32_t)(random >> (16 - n))) >> n;
}

int32_t fixed_sloped(int32_t x, uint16_t slope)
{
    const int16_t high = (int16_t)(x >> 16);
    const uint16_t low = (uint16_t)x;
    return slope == FIXED_LINEAR ? x : (int32_t)high * slope + (int32_t)((uint32_t)low * slope >> 16);
}

int32_t fixed_dot(const int8_t *x, const int16_t *w, uint16_t count)
{
    int32_t sum = 0;
    for (; count > 0; count--) {
        sum += (int32_t)*x++ * *w++;
    }
    return sum;
}

void fixed_dot_pair(int32_t sum[2], const int8_t *x, const int16_t *w, const struct fixed_walk *walk, uint8_t sums)
{
    sum[0] = sum[1] = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, w += walk->w_skip) {
        for (uint16_t left = walk->count; left > 0; left--, x++, w += walk->w_stride) {
            sum[0] += (int32_t)*x * w[0];
            sum[1] += sums > 1 ? (int32_t)*x * w[1] : 0;
        }
    }
}

void fixed_dot_bytes(int32_t sum[2], const int8_t *x, const int8_t *d, const struct fixed_walk *walk, uint8_t sums)
{
    sum[0] = sum[1] = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, d += walk->w_skip) {
        for (uint16_t left = walk->count; left > 0; left--, x += walk->x_stride, d += walk->w_stride) {
            sum[0] += (int16_t)(*x * d[0]);
            sum[1] += sums > 1 ? (int16_t)(*x * d[1]) : 0;
        }
    }
}

void fixed_update_rows(int16_t *w, const int8_t *x, const int16_t *step, uint16_t count, uint16_t rows,
                       ptrdiff_t w_skip)
{
    uint8_t random = (uint8_t)fixed_random();
    for (; rows > 0; rows--, x++, w += (ptrdiff_t)count + w_skip) {
        for (uint16_t i = 0; *x != 0 && i < count; i++) {
            random = (uint8_t)(random + 157U);
            fixed_add(w + i, (int16_t)(((int32_t)*x * step[i] + random) >> 8));
        }
    }
}
#endif

int32_t fixed_long_dot(const int8_t *x, const int16_t *w, uint16_t count, uint8_t lost)
{
    int32_t sum = 0;
    for (; count > 256; count = (uint16_t)(count - 256), x += 256, w += 256) {
        sum += fixed_dot(x, w, 256) >> lost;
    }
    return sum + (fixed_dot(x, w, count) >> lost);
}

void fixed_long_dot_pair(int32_t sum[2], const int8_t *x, const int16_t *w, const struct fixed_walk *walk,
                         uint8_t sums, uint8_t lost)
{
    sum[0] = sum[1] = 0;
    for (uint16_t row = walk->rows; row > 0; row--, x += walk->x_skip, w += walk->w_skip) {
        struct fixed_walk piece = { .rows = 1, .w_stride = walk->w_stride };
        for (uint16_t left = walk->count; left > 0; left = (uint16_t)(left - piece.count)) {
            int32_t part[2];
            piece.count = left < 256 ? left : 256;
            fixed_dot_pair(part, x, w, &piece, sums);
            sum[0] += part[0] >> lost;
            sum[1] += part[1] >> lost;
            x += piece.count;
            w += (size_t)piece.count * walk->w_stride;
        }
    }
}
