/* Pooling in fixed point. Padding is never a maximum and never counts in an average, as in Keras. */
#include "bits.h"
#include "fixed_inner.h"
#include "window.h"

/// Forward ///

static ENGINE_INLINE uint8_t tap_bits(const struct engine_window *s)
{
    return engine_packed_bits((uint16_t)((uint16_t)s->kernel_height * s->kernel_width));
}

/* The first maximum in row-major order, as TensorFlow takes it; returns its place in the window. */
static uint16_t window_maximum(int8_t *maximum, const int8_t *in, struct engine_span rows, struct engine_span columns,
                               const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    uint16_t tap = 0;
    *maximum = INT8_MIN; /* which no element is */
    for (uint16_t row = 0; row < rows.count; row++, in += in_row) {
        const int8_t *v = in;
        for (uint16_t column = 0; column < columns.count; column++, v += s->in_channels) {
            if (*v > *maximum) {
                *maximum = *v;
                tap = (uint16_t)((rows.first + row) * s->kernel_width + columns.first + column);
            }
        }
    }
    return tap;
}

/* To nearest, halves up. */
static int8_t window_average(const int8_t *in, struct engine_span rows, struct engine_span columns,
                             const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    const uint32_t count = (uint32_t)rows.count * columns.count;
    int32_t sum = (int32_t)(128 * count + count / 2); /* 128 more in each element: then rounding down is enough */
    for (uint16_t row = 0; row < rows.count; row++, in += in_row) {
        const int8_t *v = in;
        for (uint16_t column = 0; column < columns.count; column++, v += s->in_channels) {
            sum += *v;
        }
    }
    return (int8_t)((int16_t)((uint32_t)sum / count) - 128);
}

static ENGINE_INLINE void pool_forward(struct fixed_values *out, uint8_t *argmax, const struct fixed_values *in,
                                       const bool maxima, const struct engine_window *s)
{
    const uint8_t bits = tap_bits(s);
    uint32_t o = 0;
    for (uint16_t y = 0; y < s->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(s, y);
        for (uint16_t x = 0; x < s->out_width; x++) {
            const struct engine_span columns = engine_tap_columns(s, x);
            const int8_t *first = in->at + engine_in_offset(s, y, x, rows.first, columns.first);
            for (uint16_t channel = 0; channel < s->in_channels; channel++, o++, first++) {
                if (maxima) {
                    engine_packed_write(argmax, bits, o, window_maximum(&out->at[o], first, rows, columns, s));
                } else {
                    out->at[o] = window_average(first, rows, columns, s);
                }
            }
        }
    }
    out->exponent = in->exponent;
}

void fixed_max_pool_forward(struct fixed_values *out, uint8_t *argmax, const struct fixed_values *in,
                            const struct engine_window *s)
{
    pool_forward(out, argmax, in, true, s);
}

void fixed_average_pool_forward(struct fixed_values *out, const struct fixed_values *in, const struct engine_window *s)
{
    pool_forward(out, NULL, in, false, s);
}

void fixed_activate(struct fixed_values *x, uint16_t count, uint16_t slope)
{
    for (uint16_t i = 0; i < count; i++) {
        if (x->at[i] < 0) { /* to nearest, halves up */
            x->at[i] = (int8_t)(((int32_t)x->at[i] * slope + 32768) >> 16);
        }
    }
}

/// Backward ///

#define SHARE_BITS 22 /* of an output's share of its gradient for one input: what an input gets stays below 2^31 */

/* An output's share for each input in its window, rounded down. Division is slow and most windows are alike, hence the
 * memory of the last one. */
struct pool_share {
    uint16_t count;
    int32_t share;
};

static int32_t pool_share(struct pool_share *last, const struct engine_window *s, uint16_t y, uint16_t x)
{
    const uint16_t count = (uint16_t)(engine_tap_rows(s, y).count * engine_tap_columns(s, x).count);
    if (count != last->count) {
        last->count = count;
        last->share = ((int32_t)1 << SHARE_BITS) / count;
    }
    return last->share;
}

static ENGINE_INLINE void pool_backward(struct fixed_values *in_out, uint16_t slope, const uint8_t *argmax,
                                        const struct fixed_values *out_gradient, uint8_t *shift, const bool maxima,
                                        const struct engine_window *s)
{
    const uint8_t bits = tap_bits(s);
    struct fixed_scale scale = { *shift, 0 };
    struct pool_share share = { 0, 0 };
    uint32_t i = 0;
    for (uint16_t y = 0; y < s->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(s, y);
        for (uint16_t x = 0; x < s->in_width; x++) {
            const struct engine_span columns = engine_fed_columns(s, x);
            for (uint16_t channel = 0; channel < s->in_channels; channel++, i++) {
                if (in_out->at[i] == 0 && slope == 0) { /* a dead ReLU: nothing flows through it */
                    continue;
                }
                int32_t sum = 0;
                for (uint16_t row = 0; row < rows.count; row++) {
                    const uint16_t out_y = (uint16_t)(rows.first + row);
                    for (uint16_t column = 0; column < columns.count; column++) {
                        const uint16_t out_x = (uint16_t)(columns.first + column);
                        const uint32_t o = ((uint32_t)out_y * s->out_width + out_x) * s->in_channels + channel;
                        if (!maxima) {
                            sum += out_gradient->at[o] * pool_share(&share, s, out_y, out_x);
                        } else if (engine_packed_read(argmax, bits, o) == engine_tap(s, y, x, out_y, out_x)) {
                            sum += out_gradient->at[o];
                        }
                    }
                }
                fixed_put(in_out->at, i, in_out->at[i] > 0 ? sum : fixed_sloped(sum, slope), &scale);
            }
        }
    }
    in_out->exponent = fixed_exponent((int16_t)(out_gradient->exponent + scale.shift - (maxima ? 0 : SHARE_BITS)));
    *shift = fixed_next_shift(&scale);
}

void fixed_max_pool_backward(struct fixed_values *in_out, uint16_t slope, const uint8_t *argmax,
                             const struct fixed_values *out_gradient, uint8_t *shift, const struct engine_window *s)
{
    pool_backward(in_out, slope, argmax, out_gradient, shift, true, s);
}

void fixed_average_pool_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_values *out_gradient,
                                 uint8_t *shift, const struct engine_window *s)
{
    pool_backward(in_out, slope, NULL, out_gradient, shift, false, s);
}
