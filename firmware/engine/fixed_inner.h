/* What the fixed-point kernels share. Private to firmware/engine.
 *
 * What makes two implementations agree to the bit, beside the arithmetic:
 * - Order. Dense: one output, one input after the other. Convolutions take channels two at a time, depthwise ones one at
 *   a time, and go through the pixels with them; of a sample, output row by output row. Pooling: as memory lies.
 * - Backward, the biases take their step first. Dense: each output's `step` with its bias, then input by input. A
 *   convolution: the pair's weights by channel, tap and output, then the pair's gradient, with the weights as they were.
 *   Of a sample, all weights as they lie.
 * - Where an element does not fit, what is halved is: forward, every output of a convolution, written or not; else the
 *   elements before it. Backward: whole channels first, one after the other, then the pair's, each by itself.
 * - Drawn is one number for each gradient that is rounded, but none behind a dead ReLU; for each element that is halved;
 *   for each call of fixed_update_rows; for each call of fixed_rounded with a value that is not zero and an exponent of
 *   -31 to 0. A dense layer's steps under exponents from 0 to 7 are whole and draw none.
 * - Bits are lost by pieces of 256 products in a run. A run is a kernel row, or of a dense layer a group; backward an
 *   output row, depthwise one output.
 */
#ifndef ENGINE_FIXED_INNER_H
#define ENGINE_FIXED_INNER_H

#include "fixed.h"
#include "flash.h"
#include "inner.h"

#include <stddef.h>
#include <string.h>

#if (-1 >> 1) != -1
#error "the engine needs right shifts that keep the sign"
#endif

#define FIXED_MAX 127 /* of an activation; -128 is left out, so that a sign can be turned */
#define FIXED_LOW 64  /* a tensor whose largest magnitude is below could have been twice as fine */

extern uint16_t fixed_state; /* of the generator; never 0 */

/* Sixteen bits: the xorshift generator of period 2^16 - 1 with shifts 7, 9, 8 (after Marsaglia 2003). An 8-bit core does
 * it in a dozen instructions. */
static ENGINE_INLINE uint16_t fixed_random(void)
{
    uint16_t x = fixed_state;
    x = (uint16_t)(x ^ (uint16_t)(x << 7));
    x = (uint16_t)(x ^ x >> 9);
    x = (uint16_t)(x ^ (uint16_t)(x << 8));
    fixed_state = x;
    return x;
}

/* x / 2^n, to nearest; halves up. |x| < 2^31 - 2^16 here and below, n < 32. */
int32_t fixed_nearest(int32_t x, uint8_t n);
/* x / 2^n, up or down with the probability that leaves the mean where it is: sixteen random bits are added below the
 * result's last place, which leaves 2^-17 of it where n is larger. */
int32_t fixed_stochastic(int32_t x, uint8_t n);
/* x * slope, rounded down. */
int32_t fixed_sloped(int32_t x, uint16_t slope);

static ENGINE_INLINE int32_t fixed_activated(int32_t sum, uint16_t slope)
{
    return sum < 0 ? fixed_sloped(sum, slope) : sum;
}

/* `count` bytes of a sample, `from` on, as 8-bit values; returns all their bits together, 0 if all are zero. */
int8_t fixed_read(int8_t *to, const struct fixed_input *in, size_t from, size_t count);

/* Sum of x[i] * w[i] over at most 256 elements. */
int32_t fixed_dot(const int8_t *x, const int16_t *w, uint16_t count);

/* How two operands are walked side by side: `rows` times `count` elements. A stride leads from an element to the next, a
 * skip from where a row has ended, one stride past its last element, to the next row. fixed_avr.S knows this layout. */
struct fixed_walk {
    uint16_t count, rows;
    ptrdiff_t x_skip, w_skip;
    uint16_t x_stride, w_stride;
};

/* Two sums that share an operand: of x × w, and of x × what follows each w. With `sums` 1 the second is not made, or not
 * to be used. At most 256 elements; x_stride counts as 1. */
void fixed_dot_pair(int32_t sum[2], const int8_t *x, const int16_t *w, const struct fixed_walk *walk, uint8_t sums);
/* The same of x × d, 2^16 elements at most; the walk's w is d. */
void fixed_dot_bytes(int32_t sum[2], const int8_t *x, const int8_t *d, const struct fixed_walk *walk, uint8_t sums);
/* For each of `rows` inputs x that is not zero: w[i] += (x * step[i] + r) >> 8, held within 16 bits and counted. r is a
 * byte: 157 more at each weight, modulo 256, from a random one. Alone every r is uniform, so that each weight is rounded
 * without bias; together they are spread evenly. From a row's end to the next w are `w_skip` weights. Neither `count`
 * nor `rows` is 0. */
void fixed_update_rows(int16_t *w, const int8_t *x, const int16_t *step, uint16_t count, uint16_t rows,
                       ptrdiff_t w_skip);

/* value * 2^exponent as 16 bits, stochastically rounded; held within them and counted. */
int16_t fixed_rounded(int32_t value, int16_t exponent);
/* *w += delta, held within 16 bits and counted. */
void fixed_add(int16_t *w, int16_t delta);

/* The bits by which a sum over `terms` products must be shifted while it is made, so that 32 bits hold it. A product is
 * below 2^22, so 256 of them and a bias are. */
static ENGINE_INLINE uint8_t fixed_lost(uint32_t terms)
{
    uint8_t lost = 0;
    for (; terms > 256; terms = (terms + 1) / 2) {
        lost++;
    }
    return lost;
}

/* fixed_dot and fixed_dot_pair of any size, each 256 terms shifted by `lost`. */
int32_t fixed_long_dot(const int8_t *x, const int16_t *w, uint16_t count, uint8_t lost);
void fixed_long_dot_pair(int32_t sum[2], const int8_t *x, const int16_t *w, const struct fixed_walk *walk,
                         uint8_t sums, uint8_t lost);

static ENGINE_INLINE int32_t fixed_any_dot(const int8_t *x, const int16_t *w, uint16_t count, uint8_t lost)
{
    return lost == 0 ? fixed_dot(x, w, count) : fixed_long_dot(x, w, count, lost);
}

static ENGINE_INLINE void fixed_any_dot_pair(int32_t sum[2], const int8_t *x, const int16_t *w,
                                             const struct fixed_walk *walk, uint8_t sums, uint8_t lost)
{
    if (lost == 0) {
        fixed_dot_pair(sum, x, w, walk, sums);
    } else {
        fixed_long_dot_pair(sum, x, w, walk, sums, lost);
    }
}

/* A weight; those of frozen layers lie in an AVR's flash (flash.h). */
static ENGINE_INLINE int16_t fixed_weight(const int16_t *at, bool in_flash)
{
    return in_flash ? (int16_t)ENGINE_FLASH_U16(*at) : *at;
}

/* Where backward writes: frozen weights alone lie in memory that is constant. */
static ENGINE_INLINE int16_t *fixed_trained(const int16_t *weights)
{
    return (int16_t *)weights;
}

/* Where a layer's sums begin to count, and the bits that they lose while they are made. */
struct fixed_sums {
    int16_t exponent, bias_exponent; /* of a sum; of a bias seen from there, at most FIXED_BIAS_SHIFT */
    uint8_t lost;
};

#define FIXED_BIAS_SHIFT 14 /* a bias has 16 bits and comes to at most 2^29 */

/* Of a layer whose sums have `terms` products. Beside a bias, products much smaller than it lose as many bits as it
 * takes to hold both. */
struct fixed_sums fixed_sums(int8_t in_exponent, const struct fixed_weights *weights, uint32_t terms);
/* A bias where sums begin: value * 2^exponent, to nearest. */
int32_t fixed_start(const int16_t *bias, uint16_t channel, int16_t exponent, bool in_flash);

#define FIXED_FARTHEST 100 /* magnitude of a tensor's exponent: all that lies farther is no number worth training on */

/* An exponent in the byte that a tensor has for it. */
int8_t fixed_exponent(int16_t exponent);

/* The shift of a tensor under way, and the largest magnitude in it. */
struct fixed_scale {
    uint8_t shift, peak;
};

/* Whether the integer fits; otherwise the caller halves what is written, and asks again with a shift one larger. */
static ENGINE_INLINE bool fixed_fits(struct fixed_scale *scale, int32_t value)
{
    if ((uint32_t)value + FIXED_MAX > 2 * FIXED_MAX) {
        scale->shift++;
        scale->peak >>= 1;
        return false;
    }
    const uint8_t magnitude = (uint8_t)(value < 0 ? -(int8_t)value : (int8_t)value);
    if (magnitude > scale->peak) {
        scale->peak = magnitude;
    }
    return true;
}

/* What the next tensor of this kind starts with. */
static ENGINE_INLINE uint8_t fixed_next_shift(const struct fixed_scale *scale)
{
    return scale->shift > 0 && scale->peak < FIXED_LOW ? (uint8_t)(scale->shift - 1) : scale->shift;
}

/* Halve `count` elements `stride` apart, stochastically. */
void fixed_halve(int8_t *at, uint16_t stride, uint32_t count);
/* at[i] = sum, stochastically rounded, where only what lies before it is written. */
void fixed_put(int8_t *at, uint32_t i, int32_t sum, struct fixed_scale *scale);

#endif
