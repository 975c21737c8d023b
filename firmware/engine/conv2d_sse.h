/* Convolution on x86, four floats at once, each sum in the order of inner.h. Private to firmware/engine.
 *
 * On few channels everything around a sum takes longer than the sum. So lanes are output pixels where there are fewer
 * than four output channels, sums of a weight gradient stay in registers while the pixels pass by, and a table turns a
 * sample's bytes into floats. On the way back inputs of a pixel go side by side.
 */
#ifndef ENGINE_CONV2D_SSE_H
#define ENGINE_CONV2D_SSE_H

#include "conv2d.h"

#if ENGINE_SSE
#include <emmintrin.h>

#define SSE_BELOW 8 /* output channels; from there on their sums outweigh what is around them */
#define SSE_TAPS 3          /* of the weight gradient at a time, with which most kernel rows come out even */

/* A layer's input; of a sample, the value of each byte as well. */
struct sse_source {
    struct engine_source from;
    const float *levels; /* NULL: activations */
};

/* `levels` is room for a sample's table. */
static ENGINE_INLINE struct sse_source sse_open(struct engine_source from, float levels[256])
{
    if (!from.is_sample) {
        return (struct sse_source){ from, NULL };
    }
    const __m128 scale = _mm_set1_ps(from.sample->scale), offset = _mm_set1_ps(from.sample->offset);
    __m128i bytes = _mm_setr_epi32(0, 1, 2, 3);
    for (uint16_t i = 0; i < 256; i = (uint16_t)(i + 4), bytes = _mm_add_epi32(bytes, _mm_set1_epi32(4))) {
        _mm_storeu_ps(levels + i, _mm_add_ps(_mm_mul_ps(_mm_cvtepi32_ps(bytes), scale), offset));
    }
    return (struct sse_source){ from, levels };
}

static ENGINE_INLINE float sse_read(const struct sse_source *source, ptrdiff_t i)
{
    return source->levels != NULL ? source->levels[source->from.sample->bytes[i]] : source->from.values[i];
}

/* Compared as an integer: comparing floats takes a second branch, for NaN. */
static ENGINE_INLINE bool sse_is_zero(float v)
{
    return engine_bits(v) << 1 == 0;
}

static ENGINE_INLINE __m128 sse_load(const float *from, const uint8_t lanes)
{
    switch (lanes) {
    case 1: return _mm_load_ss(from);
    case 2: return _mm_castsi128_ps(_mm_loadl_epi64((const __m128i *)(const void *)from));
    default: return _mm_loadu_ps(from);
    }
}

static ENGINE_INLINE void sse_store(float *to, __m128 from, const uint8_t lanes)
{
    switch (lanes) {
    case 1: _mm_store_ss(to, from); break;
    case 2: _mm_storel_epi64((__m128i *)(void *)to, _mm_castps_si128(from)); break;
    default: _mm_storeu_ps(to, from);
    }
}

/* How many of `left` channels fit into one vector's lanes. */
static ENGINE_INLINE uint8_t sse_lanes(uint16_t left)
{
    return left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

/* A constant count of outputs of four pixels, `step` input elements apart. The product of an input of zero becomes minus
 * zero, which changes no sum. */
static ENGINE_INLINE void sse_four_pixels(float *out, uint16_t out_channels, const uint8_t count,
                                          const struct sse_source *in, ptrdiff_t step, const float *weight,
                                          const float *bias, const struct engine_patch *patch)
{
    __m128 sum[4];
    ENGINE_UNROLL
    for (uint8_t o = 0; o < count; o++) {
        sum[o] = _mm_set1_ps(bias == NULL ? 0.0f : bias[o]);
    }
    for (uint16_t row = 0; row < patch->rows; row++) {
        ptrdiff_t at = (ptrdiff_t)(patch->in + row * patch->in_row);
        const float *column_weight = weight + (patch->weight + row * patch->weight_row);
        for (uint16_t column = 0; column < patch->columns; column++, column_weight += patch->weight_column) {
            const float *w = column_weight;
            for (const ptrdiff_t end = at + patch->channels; at != end; at++, w += patch->weight_out) {
                const __m128 v = _mm_setr_ps(sse_read(in, at), sse_read(in, at + step), sse_read(in, at + 2 * step),
                                             sse_read(in, at + 3 * step));
                const __m128 counts = _mm_cmpneq_ps(v, _mm_setzero_ps());
                const int which = _mm_movemask_ps(counts);
                if (which == 0) {
                    continue;
                }
                ENGINE_UNROLL
                for (uint8_t o = 0; o < count; o++) {
                    __m128 product = _mm_mul_ps(v, _mm_set1_ps(w[o]));
                    if (which != 15) {
                        product = _mm_or_ps(_mm_and_ps(counts, product), _mm_andnot_ps(counts, _mm_set1_ps(-0.0f)));
                    }
                    sum[o] = _mm_add_ps(sum[o], product);
                }
            }
        }
    }
    ENGINE_UNROLL
    for (uint8_t o = 0; o < count; o++) {
        float four[4];
        _mm_storeu_ps(four, sum[o]);
        for (uint8_t i = 0; i < 4; i++) {
            out[i * out_channels + o] = four[i];
        }
    }
}

static ENGINE_INLINE bool sse_is_whole(const struct engine_window *shape, uint32_t x)
{
    return x < shape->out_width && engine_tap_columns(shape, (uint16_t)x).count == shape->kernel_width;
}

/* A constant count of outputs of every pixel. */
static ENGINE_INLINE void sse_forward_of(float *out, const uint8_t count, const struct sse_source *in,
                                         const float *weight, const float *bias, const struct engine_window *shape)
{
    const uint16_t channels = shape->out_channels;
    const ptrdiff_t step = (ptrdiff_t)shape->stride_width * shape->in_channels;
    for (uint16_t y = 0; y < shape->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(shape, y);
        for (uint32_t x = 0, pixels; x < shape->out_width; x += pixels, out += pixels * channels) {
            const struct engine_patch patch = conv2d_patch(shape, rows, y, (uint16_t)x);
            pixels = sse_is_whole(shape, x) && sse_is_whole(shape, x + 3) ? 4 : 1;
            if (pixels == 4) {
                sse_four_pixels(out, channels, count, in, step, weight, bias, &patch);
            } else {
                (void)engine_patch_block(out, 0, count, count, in->from, weight, bias, &patch);
            }
        }
    }
}

/* All outputs; worth it for fewer than SSE_BELOW. */
static ENGINE_INLINE void sse_forward(float *out, struct engine_source from, const float *weight, const float *bias,
                                      const struct engine_window *shape)
{
    float levels[256];
    const struct sse_source in = sse_open(from, levels);
    uint8_t count;
    for (uint16_t left = shape->out_channels; left > 0; left = (uint16_t)(left - count), out += count) {
        count = sse_lanes(left);
        switch (count) {
        case 1: sse_forward_of(out, 1, &in, weight, bias, shape); break;
        case 2: sse_forward_of(out, 2, &in, weight, bias, shape); break;
        default: sse_forward_of(out, 4, &in, weight, bias, shape);
        }
        weight += count;
        bias = bias == NULL ? NULL : bias + count;
    }
}

/* Neighbours in a row of the kernel, and the outputs that see the input through them. */
struct sse_taps {
    float *gradient[SSE_TAPS];
    struct engine_span rows, columns[SSE_TAPS];
    uint32_t any, whole, whole_end, end; /* columns where an output sees any of them, all, no longer all, none */
    ptrdiff_t in, in_row, in_column;     /* input under the first of them at output (0, 0); steps to the next output */
};

/* Outputs for which kernel tap `tap` falls inside the input, along one axis. */
static ENGINE_INLINE struct engine_span sse_seen(uint16_t tap, uint8_t stride, uint8_t pad, uint16_t in_size,
                                                 uint16_t out_size)
{
    const int32_t first = pad > tap ? (pad - tap + stride - 1) / stride : 0;
    const int32_t last = (int32_t)in_size - 1 + pad - tap;
    const int32_t end = last < 0 ? 0 : last / stride + 1;
    const int32_t inside = end < out_size ? end : out_size;
    return (struct engine_span){ (uint16_t)first, (uint16_t)(inside > first ? inside - first : 0) };
}

/* `count` taps from element `first` (column × input channel) of a kernel row. */
static ENGINE_INLINE struct sse_taps sse_taps_at(const uint8_t count, float *gradient, const struct engine_window *s,
                                                 uint16_t row, uint32_t first)
{
    const ptrdiff_t line = (ptrdiff_t)s->in_width * s->in_channels;
    struct sse_taps taps = {
        .rows = sse_seen(row, s->stride_height, s->pad_top, s->in_height, s->out_height),
        .any = s->out_width,
        .whole_end = s->out_width,
        .in = (row - s->pad_top) * line + (ptrdiff_t)first - (ptrdiff_t)s->pad_left * s->in_channels,
        .in_row = s->stride_height * line,
        .in_column = (ptrdiff_t)s->stride_width * s->in_channels,
    };
    ENGINE_UNROLL
    for (uint8_t i = 0; i < count; i++) {
        const uint32_t column = (first + i) / s->in_channels, channel = (first + i) % s->in_channels;
        const uint32_t tap = (uint32_t)row * s->kernel_width + column;
        const struct engine_span seen =
            sse_seen((uint16_t)column, s->stride_width, s->pad_left, s->in_width, s->out_width);
        const uint32_t end = (uint32_t)seen.first + seen.count;
        taps.gradient[i] = gradient + (tap * s->weight_in + channel) * s->weight_out;
        taps.columns[i] = seen;
        taps.any = seen.first < taps.any ? seen.first : taps.any;
        taps.whole = seen.first > taps.whole ? seen.first : taps.whole;
        taps.whole_end = end < taps.whole_end ? end : taps.whole_end;
        taps.end = end > taps.end ? end : taps.end;
    }
    taps.whole = taps.whole < taps.end ? taps.whole : taps.end;
    taps.whole_end = taps.whole_end > taps.whole ? taps.whole_end : taps.whole;
    return taps;
}

/* sum += scale × input × d for outputs x…end of a row. */
static ENGINE_INLINE void sse_row_weights(__m128 *sum, const uint8_t count, const uint8_t lanes,
                                          const struct sse_source *in, ptrdiff_t at, const float *d, float scale,
                                          uint16_t channels, const struct sse_taps *taps, uint32_t x, uint32_t end,
                                          const bool whole)
{
    for (; x < end; x++) {
        const __m128 gradient = sse_load(d + x * channels, lanes);
        ENGINE_UNROLL
        for (uint8_t i = 0; i < count; i++) {
            if (whole || x - taps->columns[i].first < taps->columns[i].count) {
                const float v = sse_read(in, at + (ptrdiff_t)x * taps->in_column + i);
                if (!sse_is_zero(v)) {
                    sum[i] = _mm_add_ps(sum[i], _mm_mul_ps(_mm_set1_ps(scale * v), gradient));
                }
            }
        }
    }
}

/* Gradient of a constant count of taps to as many outputs as there are lanes. */
static ENGINE_INLINE void sse_taps_weights(const struct sse_taps *taps, const uint8_t count, const uint8_t lanes,
                                           const struct sse_source *in, const float *d, float scale,
                                           const struct engine_window *shape)
{
    const uint16_t channels = shape->out_channels;
    __m128 sum[SSE_TAPS];
    ENGINE_UNROLL
    for (uint8_t i = 0; i < count; i++) {
        sum[i] = sse_load(taps->gradient[i], lanes);
    }
    for (uint32_t y = taps->rows.first; y < (uint32_t)taps->rows.first + taps->rows.count; y++) {
        const ptrdiff_t at = taps->in + (ptrdiff_t)y * taps->in_row;
        const float *row = d + y * shape->out_width * channels;
        sse_row_weights(sum, count, lanes, in, at, row, scale, channels, taps, taps->any, taps->whole, false);
        sse_row_weights(sum, count, lanes, in, at, row, scale, channels, taps, taps->whole, taps->whole_end, true);
        sse_row_weights(sum, count, lanes, in, at, row, scale, channels, taps, taps->whole_end, taps->end, false);
    }
    ENGINE_UNROLL
    for (uint8_t i = 0; i < count; i++) {
        sse_store(taps->gradient[i], sum[i], lanes);
    }
}

static ENGINE_INLINE void sse_weights_of(const uint8_t lanes, const struct sse_source *in, float *gradient,
                                         const float *d, float scale, const struct engine_window *shape)
{
    const uint32_t line = (uint32_t)shape->kernel_width * shape->in_channels;
    for (uint16_t row = 0; row < shape->kernel_height; row++) {
        uint32_t first = 0;
        for (; line - first >= SSE_TAPS; first += SSE_TAPS) {
            const struct sse_taps taps = sse_taps_at(SSE_TAPS, gradient, shape, row, first);
            sse_taps_weights(&taps, SSE_TAPS, lanes, in, d, scale, shape);
        }
        for (; first < line; first++) {
            const struct sse_taps taps = sse_taps_at(1, gradient, shape, row, first);
            sse_taps_weights(&taps, 1, lanes, in, d, scale, shape);
        }
    }
}

/* Weight gradient to all outputs; worth it for fewer than SSE_BELOW. */
static ENGINE_INLINE void sse_weights(struct engine_source from, float *gradient, const float *d, float scale,
                                      const struct engine_window *shape)
{
    float levels[256];
    const struct sse_source in = sse_open(from, levels);
    uint8_t lanes;
    for (uint16_t left = shape->out_channels; left > 0; left = (uint16_t)(left - lanes), gradient += lanes, d += lanes) {
        lanes = sse_lanes(left);
        switch (lanes) {
        case 1: sse_weights_of(1, &in, gradient, d, scale, shape); break;
        case 2: sse_weights_of(2, &in, gradient, d, scale, shape); break;
        default: sse_weights_of(4, &in, gradient, d, scale, shape);
        }
    }
}

static ENGINE_INLINE void sse_bias_of(const uint8_t lanes, float *gradient, const float *d, float scale,
                                      uint32_t pixels, uint16_t channels)
{
    __m128 sum = sse_load(gradient, lanes);
    for (; pixels > 0; pixels--, d += channels) {
        sum = _mm_add_ps(sum, _mm_mul_ps(_mm_set1_ps(scale), sse_load(d, lanes)));
    }
    sse_store(gradient, sum, lanes);
}

/* engine_bias_gradient with its sums in registers. */
static ENGINE_INLINE void sse_bias(float *gradient, const float *d, float scale, uint32_t pixels, uint16_t channels)
{
    uint8_t lanes;
    for (uint16_t left = gradient == NULL ? 0 : channels; left > 0; left = (uint16_t)(left - lanes)) {
        lanes = sse_lanes(left);
        switch (lanes) {
        case 1: sse_bias_of(1, gradient, d, scale, pixels, channels); break;
        case 2: sse_bias_of(2, gradient, d, scale, pixels, channels); break;
        default: sse_bias_of(4, gradient, d, scale, pixels, channels);
        }
        gradient += lanes;
        d += lanes;
    }
}

/* A constant number of inputs of a pixel, none zero, to as many outputs as fill lanes: an output gradient, once read,
 * serves them all. Turns them into their gradients and adds what they owe to the weight gradient. */
static ENGINE_INLINE void sse_inputs(float *in_out, const uint8_t count, float slope, const struct fan *fan,
                                     const float *weight, float *weight_gradient, const float *out_gradient,
                                     float scale, const struct engine_window *shape)
{
    const uint16_t out_channels = shape->out_channels, weight_out = shape->weight_out;
    __m128 lanes[4], a[4];
    ENGINE_UNROLL
    for (uint8_t i = 0; i < count; i++) {
        lanes[i] = _mm_setzero_ps();
        a[i] = _mm_set1_ps(scale * in_out[i]);
    }
    uint32_t row_weight = fan->weight;
    out_gradient += fan->out;
    for (uint16_t row = 0; row < fan->rows; row++) {
        uint32_t at = row_weight;
        const float *d = out_gradient;
        for (uint16_t column = 0; column < fan->columns; column++) {
            const float *w = weight + at;
            float *g = weight_gradient + at;
            for (uint16_t o = 0; o < out_channels; o = (uint16_t)(o + 4), d += 4, w += 4, g += 4) {
                const __m128 four = _mm_loadu_ps(d);
                ENGINE_UNROLL
                for (uint8_t i = 0; i < count; i++) {
                    const uint32_t input = (uint32_t)i * weight_out;
                    lanes[i] = _mm_add_ps(lanes[i], _mm_mul_ps(_mm_loadu_ps(w + input), four));
                    _mm_storeu_ps(g + input, _mm_add_ps(_mm_loadu_ps(g + input), _mm_mul_ps(a[i], four)));
                }
            }
            at -= fan->weight_column;
        }
        row_weight -= fan->weight_row;
        out_gradient += fan->out_row;
    }
    ENGINE_UNROLL
    for (uint8_t i = 0; i < count; i++) {
        struct engine_lanes sum;
        _mm_storeu_ps(sum.at, lanes[i]);
        in_out[i] = engine_derivative(engine_lanes_sum(&sum), in_out[i], slope);
    }
}

/* Takes as many inputs of a pixel side by side as it can; returns how many: none if the next one is zero, if the layer
 * is frozen, or if lanes would stay empty. */
static ENGINE_INLINE uint16_t sse_backward(float *in_out, uint16_t left, float slope, const struct fan *fan,
                                           const float *weight, float *weight_gradient, const float *out_gradient,
                                           float scale, const struct engine_window *shape)
{
    if (weight_gradient == NULL || shape->out_channels % 4 != 0 || left < 2 || sse_is_zero(in_out[0]) ||
        sse_is_zero(in_out[1])) {
        return 0;
    }
    if (left < 4 || sse_is_zero(in_out[2]) || sse_is_zero(in_out[3])) {
        sse_inputs(in_out, 2, slope, fan, weight, weight_gradient, out_gradient, scale, shape);
        return 2;
    }
    sse_inputs(in_out, 4, slope, fan, weight, weight_gradient, out_gradient, scale, shape);
    return 4;
}

#endif
#endif
