/* Two-dimensional convolution in fixed point, the weights and the way back; as fixed_conv2d_forward.c. */
#include "fixed_window.h"

/// Weights ///

/* The step of the weights `w` between one input channel and all outputs, tap by tap: the sums over the output pixels of
 * the input under the tap times the output gradient. */
static void conv2d_step(int16_t *w, const struct fixed_values *in, uint16_t channel, int8_t kernel_exponent,
                        const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - kernel_exponent);
    const uint16_t in_step = (uint16_t)(s->stride_width * s->in_channels), outs = s->out_channels;
    const size_t in_row = (size_t)s->stride_height * s->in_width * s->in_channels, out_row = (size_t)s->out_width * outs;
    for (uint8_t tap_y = 0; tap_y < s->kernel_height; tap_y++) {
        const struct engine_span rows = fixed_seen(tap_y, s->stride_height, s->pad_top, s->in_height, s->out_height);
        for (uint8_t tap_x = 0; tap_x < s->kernel_width; tap_x++, w += (size_t)s->weight_in * s->weight_out) {
            const struct engine_span columns =
                fixed_seen(tap_x, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const int8_t *x = in->at + engine_in_offset(s, rows.first, columns.first, tap_y, tap_x) + channel;
            const int8_t *d = out_gradient->at + rows.first * out_row + (size_t)columns.first * outs;
            const ptrdiff_t x_skip = (ptrdiff_t)(in_row - (size_t)in_step * columns.count);
            const ptrdiff_t d_skip = (ptrdiff_t)(out_row - (size_t)outs * columns.count);
            const struct fixed_walk walk = { columns.count, rows.count, x_skip, d_skip, in_step, outs };
            for (uint16_t o = 0; o < outs; o = (uint16_t)(o + 2)) {
                int32_t sum[2];
                fixed_dot_bytes(sum, x, d + o, &walk, fixed_pair(outs, o));
                fixed_add(w + o, fixed_rounded(-sum[0], exponent));
                if (fixed_pair(outs, o) > 1) {
                    fixed_add(w + o + 1, fixed_rounded(-sum[1], exponent));
                }
            }
        }
    }
}

void fixed_conv2d_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights,
                                   const struct fixed_values *out_gradient, const struct engine_window *s)
{
    fixed_bias_step(weights, out_gradient, s);
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        int16_t *w = fixed_trained(weights->kernel) + (size_t)channel * s->weight_out;
        conv2d_step(w, in, channel, weights->kernel_exponent, out_gradient, s);
    }
}

/* Adds one output row's share to the sums of all weights in use: [tap][in][out]. */
static void conv2d_line_sums(fixed_sum *sum, const int8_t *line, struct engine_span rows, const int8_t *out,
                             const struct engine_window *s)
{
    const uint16_t in_step = (uint16_t)(s->stride_width * s->in_channels), outs = s->out_channels;
    const size_t in_row = (size_t)s->in_width * s->in_channels, row_sums = (size_t)s->in_channels * outs;
    sum += rows.first * s->kernel_width * row_sums;
    for (uint8_t tap = 0; tap < s->kernel_width; tap++) {
        const struct engine_span columns = fixed_seen(tap, s->stride_width, s->pad_left, s->in_width, s->out_width);
        const struct fixed_walk walk = { columns.count, 1, 0, 0, in_step, outs };
        const int8_t *in = line + (uint16_t)(columns.first * s->stride_width + tap - s->pad_left) * s->in_channels;
        for (uint16_t row = 0; row < rows.count; row++, in += in_row) {
            fixed_sum *to = sum + (size_t)(row * s->kernel_width + tap) * row_sums;
            for (uint16_t i = 0; i < s->in_channels; i++) {
                for (uint16_t o = 0; o < outs; o = (uint16_t)(o + 2)) {
                    int32_t part[2];
                    fixed_dot_bytes(part, in + i, out + (size_t)columns.first * outs + o, &walk, fixed_pair(outs, o));
                    *to++ += part[0];
                    if (fixed_pair(outs, o) > 1) {
                        *to++ += part[1];
                    }
                }
            }
        }
    }
}

void fixed_conv2d_backward_sample(const struct fixed_input *in, const struct fixed_weights *weights, fixed_sum *sum,
                                  int8_t *line, const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const uint16_t taps = (uint16_t)(s->kernel_height * s->kernel_width);
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - weights->kernel_exponent);
    const int8_t *d = out_gradient->at;
    fixed_bias_step(weights, out_gradient, s);
    memset(sum, 0, (size_t)taps * s->in_channels * s->out_channels * sizeof *sum);
    for (uint16_t y = 0; y < s->out_height; y++, d += (size_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        if (fixed_line(line, in, rows, y, s)) {
            conv2d_line_sums(sum, line, rows, d, s);
        }
    }
    for (uint16_t tap = 0; tap < taps; tap++) {
        int16_t *w = fixed_trained(weights->kernel) + tap * (size_t)s->weight_in * s->weight_out;
        for (uint16_t i = 0; i < s->in_channels; i++, w += s->weight_out) {
            for (uint16_t o = 0; o < s->out_channels; o++) {
                fixed_add(w + o, fixed_rounded(-*sum++, exponent));
            }
        }
    }
}

/// Backward ///

/* The weights of two input channels, alternating, as the way back meets them: by kernel row; within it by the distance of
 * an input to the stride's grid; there from the last tap to the first, as the outputs they lead to lie. */
static void conv2d_flip(int16_t *filter, const int16_t *w, uint8_t channels, const struct engine_window *s)
{
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    for (uint8_t row = 0; row < s->kernel_height; row++, w += s->kernel_width * tap_size) {
        for (uint8_t off = 0; off < s->stride_width && off < s->kernel_width; off++) {
            uint8_t tap = (uint8_t)(s->kernel_width - 1);
            tap = (uint8_t)(tap - (uint8_t)(tap - off) % s->stride_width);
            for (bool last = false; !last; tap = (uint8_t)(tap - s->stride_width)) {
                const int16_t *from = w + tap * tap_size;
                for (uint16_t o = s->out_channels; o > 0; o--, from++) {
                    *filter++ = from[0];
                    *filter++ = channels > 1 ? from[s->weight_out] : 0;
                }
                last = tap == off;
            }
        }
    }
}

/* Two input channels on their way back, and where the tensor's scale stands. */
struct conv2d_in {
    int8_t *at; /* of the first channel, pixel 0 */
    uint16_t before; /* channels before them, which are gradients already */
    uint8_t channels; /* of the pair: 1 or 2 */
    uint32_t pixel; /* the next one */
    uint16_t slope;
    struct fixed_scale scale;
    uint8_t lost;
};

/* Halves what is a gradient already, `ahead` elements of this pixel included. */
static void conv2d_halve(const struct conv2d_in *in, uint8_t ahead, const struct engine_window *s)
{
    for (uint16_t back = in->before; back > 0; back--) {
        fixed_halve(in->at - back, s->in_channels, (uint32_t)s->in_height * s->in_width);
    }
    for (uint8_t i = 0; i < in->channels; i++) {
        fixed_halve(in->at + i, s->in_channels, in->pixel + (i < ahead));
    }
}

/* Turns an element into its gradient, which comes to `sum`; `ahead` elements of its pixel have been before. */
static void conv2d_back(struct conv2d_in *in, int8_t *at, int32_t sum, uint8_t ahead, const struct engine_window *s)
{
    if (*at <= 0) {
        if (in->slope == 0) {
            *at = 0;
            return;
        }
        sum = fixed_sloped(sum, in->slope);
    }
    int32_t value = fixed_stochastic(sum, in->scale.shift);
    while (!fixed_fits(&in->scale, value)) {
        conv2d_halve(in, ahead, s);
        value = fixed_stochastic(sum, in->scale.shift);
    }
    *at = (int8_t)value;
}

/* One row of the two channels. `out` is the output row that it fed through the first of `rows` kernel rows, the others
 * lying above; `filter` that kernel row's weights, and `filter_row` leads to the next. */
static void conv2d_back_row(struct conv2d_in *in, const int8_t *out, uint16_t rows, const int16_t *filter,
                            size_t filter_row, const struct engine_window *s)
{
    const uint16_t outs = s->out_channels;
    const uint8_t most = (uint8_t)((s->kernel_width + s->stride_width - 1) / s->stride_width); /* taps on the grid */
    const uint8_t full = (uint8_t)((s->kernel_width - 1) % s->stride_width); /* off by more: one tap less */
    struct fixed_walk walk = { .rows = rows, .w_stride = 2 };
    int8_t *at = in->at + (size_t)in->pixel * s->in_channels;
    int_fast16_t last = s->pad_left / s->stride_width; /* output fed through tap `off` */
    uint8_t off = (uint8_t)(s->pad_left % s->stride_width), before = (uint8_t)(off <= full ? off * most : 0);
    if (off > full) {
        before = (uint8_t)((full + 1) * most + (off - full - 1) * (most - 1));
    }
    for (uint16_t x = s->in_width; x > 0; x--, at += s->in_channels, in->pixel++) {
        const uint8_t taps = (uint8_t)(off <= full ? most : most - 1);
        const int_fast16_t begin = last - taps + 1;
        const int_fast16_t first = begin < 0 ? 0 : begin;
        const int_fast16_t end = last < (int_fast16_t)s->out_width ? last + 1 : (int_fast16_t)s->out_width;
        int32_t sum[2] = { 0, 0 };
        if (first < end) {
            walk.count = (uint16_t)((uint16_t)(end - first) * outs);
            walk.x_skip = -(ptrdiff_t)((size_t)s->out_width * outs + walk.count);
            walk.w_skip = (ptrdiff_t)(filter_row - 2 * (size_t)walk.count);
            fixed_any_dot_pair(sum, out + (uint16_t)first * (size_t)outs,
                               filter + (uint16_t)(before + (uint16_t)(first - begin)) * (size_t)(2 * outs), &walk,
                               in->channels, in->lost);
        }
        conv2d_back(in, at, sum[0], 0, s);
        if (in->channels > 1) {
            conv2d_back(in, at + 1, sum[1], 1, s);
        }
        before = (uint8_t)(before + taps);
        if (++off == s->stride_width) {
            off = before = 0;
            last++;
        }
    }
}

/* Turns two input channels into their gradients; `filter` as conv2d_flip leaves it. */
static void conv2d_back_channels(struct conv2d_in *in, const int16_t *filter, const int8_t *out,
                                 const struct engine_window *s)
{
    const size_t filter_row = 2 * (size_t)s->kernel_width * s->out_channels;
    uint16_t last = (uint16_t)(s->pad_top / s->stride_height); /* output row fed through kernel row `off` */
    uint8_t off = (uint8_t)(s->pad_top % s->stride_height);
    in->pixel = 0;
    for (uint16_t y = s->in_height; y > 0; y--) {
        uint16_t out_y = last, tap = off, rows = 0;
        for (; out_y >= s->out_height; out_y--) {
            tap = (uint16_t)(tap + s->stride_height);
        }
        for (uint16_t next = tap; next < s->kernel_height && rows <= out_y; rows++) {
            next = (uint16_t)(next + s->stride_height);
        }
        conv2d_back_row(in, out + (size_t)out_y * s->out_width * s->out_channels, rows, filter + tap * filter_row,
                        s->stride_height * filter_row, s);
        if (++off == s->stride_height) {
            off = 0;
            last++;
        }
    }
}

void fixed_conv2d_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                           int16_t *filter, const struct fixed_values *out_gradient, uint8_t *shift,
                           const struct engine_window *s)
{
    const uint8_t lost = fixed_lost((uint32_t)s->kernel_height * s->kernel_width * s->out_channels);
    struct conv2d_in in = { .scale = { *shift, 0 }, .slope = slope, .lost = lost };
    if (!weights->frozen) {
        fixed_bias_step(weights, out_gradient, s);
    }
    for (; in.before < s->in_channels; in.before = (uint16_t)(in.before + 2)) {
        const int16_t *w = weights->kernel + (size_t)in.before * s->weight_out;
        in.at = in_out->at + in.before;
        in.channels = fixed_pair(s->in_channels, in.before);
        conv2d_flip(filter, w, in.channels, s); /* as they were: the weights themselves may take their step at once */
        for (uint8_t i = 0; i < in.channels && !weights->frozen; i++) {
            conv2d_step(fixed_trained(w) + i * s->weight_out, in_out, (uint16_t)(in.before + i),
                        weights->kernel_exponent, out_gradient, s);
        }
        conv2d_back_channels(&in, filter, out_gradient->at, s);
    }
    in_out->exponent =
        fixed_exponent((int16_t)(out_gradient->exponent + weights->kernel_exponent + lost + in.scale.shift));
    *shift = fixed_next_shift(&in.scale);
}
