/* Two-dimensional convolution in fixed point; in one dimension the height is 1. Channel by channel: an output channel's
 * weights are gathered once, and then lie as its inputs do. */
#include "fixed_inner.h"
#include "window.h"

/// Forward ///

struct conv2d_sums {
    uint16_t row; /* filter weights from one kernel row to the next */
    int16_t exponent, bias_exponent;
    uint8_t lost;
};

static struct conv2d_sums conv2d_sums(int8_t in_exponent, const struct fixed_weights *weights,
                                      const struct engine_window *s)
{
    const uint16_t row = (uint16_t)(s->kernel_width * s->in_channels);
    const uint8_t lost = fixed_lost((uint32_t)s->kernel_height * row);
    const int16_t exponent = (int16_t)(in_exponent + weights->kernel_exponent + lost);
    return (struct conv2d_sums){ row, exponent, (int16_t)(weights->bias_exponent - exponent), lost };
}

/* The weights of one output channel, side by side. */
static void conv2d_filter(int16_t *filter, const int16_t *kernel, uint16_t channel, const struct engine_window *s)
{
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    const int16_t *w = kernel + channel;
    for (uint16_t tap = (uint16_t)(s->kernel_height * s->kernel_width); tap > 0; tap--, w += tap_size) {
        const int16_t *at = w;
        for (uint16_t i = s->in_channels; i > 0; i--, at += s->weight_out) {
            *filter++ = *at;
        }
    }
}

/* Outputs under way: all of them, and where their scale stands. */
struct conv2d_out {
    int8_t *at;
    uint32_t count;
    struct fixed_scale scale;
};

/* One output channel of one output row. `in` is where the first input row inside the image begins that it sees, of
 * `rows`, and `filter` the weights of that row. */
static void conv2d_row(struct conv2d_out *out, int8_t *to, const int8_t *in, uint8_t rows, int32_t start,
                       const int16_t *filter, const struct conv2d_sums *sums, uint16_t slope,
                       const struct engine_window *s)
{
    const uint16_t channels = s->in_channels;
    const ptrdiff_t in_row = (ptrdiff_t)((size_t)s->in_width * channels);
    const int_fast16_t end = (int_fast16_t)s->in_width;
    struct fixed_walk walk = { .rows = rows, .w_stride = 1 };
    int_fast16_t left = -s->pad_left; /* the input column under the kernel's first */
    for (uint16_t x = s->out_width; x > 0; x--, to += s->out_channels, left += s->stride_width) {
        const uint16_t first = left < 0 ? (uint16_t)-left : 0;
        const uint16_t last = left + s->kernel_width > end ? (uint16_t)(end - left) : s->kernel_width;
        walk.count = (uint16_t)((last - first) * channels);
        walk.x_skip = in_row - (ptrdiff_t)walk.count;
        walk.w_skip = (ptrdiff_t)sums->row - (ptrdiff_t)walk.count;
        const int8_t *from = in + (uint16_t)(left + (int_fast16_t)first) * (size_t)channels;
        const int32_t sum = start + fixed_any_dot(from, filter + (uint16_t)(first * channels), &walk, sums->lost);
        const int32_t activated = fixed_activated(sum, slope);
        int32_t value = fixed_nearest(activated, out->scale.shift);
        while (!fixed_fits(&out->scale, value)) {
            fixed_halve(out->at, 1, out->count); /* what is not written yet will be */
            value = fixed_nearest(activated, out->scale.shift);
        }
        *to = (int8_t)value;
    }
}

static uint32_t conv2d_outputs(const struct engine_window *s)
{
    return (uint32_t)s->out_height * s->out_width * s->out_channels;
}

void fixed_conv2d_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                          int16_t *filter, uint16_t slope, uint8_t *shift, const struct engine_window *s)
{
    const struct conv2d_sums sums = conv2d_sums(in->exponent, weights, s);
    struct conv2d_out state = { out->at, conv2d_outputs(s), { *shift, 0 } };
    for (uint16_t channel = 0; channel < s->out_channels; channel++) {
        const int32_t start = fixed_start(weights->bias, channel, sums.bias_exponent);
        int8_t *to = out->at + channel;
        conv2d_filter(filter, weights->kernel, channel, s);
        for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
            const struct engine_span rows = engine_tap_rows(s, y);
            const uint16_t in_y = (uint16_t)(y * s->stride_height + rows.first - s->pad_top);
            conv2d_row(&state, to, in->at + (size_t)in_y * s->in_width * s->in_channels, (uint8_t)rows.count, start,
                       filter + rows.first * sums.row, &sums, slope, s);
        }
    }
    out->exponent = (int8_t)(sums.exponent + state.scale.shift);
    *shift = fixed_next_shift(&state.scale);
}

/* The input rows that output row `y` sees, as 8-bit values; false if all of them are zero. */
static bool conv2d_line(int8_t *line, const struct fixed_input *in, struct engine_span rows, uint16_t y,
                        const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    const uint8_t *bytes = in->bytes + (uint16_t)(y * s->stride_height + rows.first - s->pad_top) * in_row;
    int8_t any = 0;
    for (size_t left = rows.count * in_row; left > 0; left--, bytes++, line++) {
        *line = fixed_input_value(in, bytes);
        any |= *line;
    }
    return any != 0;
}

void fixed_conv2d_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                 const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                 uint8_t *shift, const struct engine_window *s)
{
    const struct conv2d_sums sums = conv2d_sums(in->exponent, weights, s);
    struct conv2d_out state = { out->at, conv2d_outputs(s), { *shift, 0 } };
    int8_t *to = out->at;
    for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        const bool any = conv2d_line(line, in, rows, y, s);
        const uint8_t seen = (uint8_t)(any ? rows.count : 0);
        for (uint16_t channel = 0; channel < s->out_channels; channel++) {
            const int32_t start = fixed_start(weights->bias, channel, sums.bias_exponent);
            conv2d_filter(filter, weights->kernel, channel, s);
            conv2d_row(&state, to + channel, line, seen, start, filter + rows.first * sums.row, &sums, slope, s);
        }
    }
    out->exponent = (int8_t)(sums.exponent + state.scale.shift);
    *shift = fixed_next_shift(&state.scale);
}

/// Backward ///

static void conv2d_bias(const struct fixed_weights *weights, const struct fixed_values *out_gradient,
                        const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(out_gradient->exponent - weights->bias_exponent);
    for (uint16_t channel = 0; weights->bias != NULL && channel < s->out_channels; channel++) {
        const int8_t *d = out_gradient->at + channel;
        int32_t sum = 0;
        for (uint32_t pixel = (uint32_t)s->out_height * s->out_width; pixel > 0; pixel--, d += s->out_channels) {
            sum += *d;
        }
        fixed_add(fixed_trained(weights->bias) + channel, fixed_rounded(-sum, exponent));
    }
}

/* Outputs from `first`, `count` long, whose tap `tap` falls inside the input; along one axis. */
static struct engine_span conv2d_seen(uint8_t tap, uint8_t stride, uint8_t pad, uint16_t in_size, uint16_t out_size)
{
    uint16_t first = 0, count = 0;
    int_fast16_t in = (int_fast16_t)tap - pad; /* where the tap of output 0 falls */
    for (; in < 0; in += stride) {
        first++;
    }
    for (; in < (int_fast16_t)in_size && first + count < out_size; in += stride) {
        count++;
    }
    return (struct engine_span){ first, count };
}

/* The step of the weights `w` between one input channel and all outputs, tap by tap: the sums over the output pixels of
 * the input under the tap times the output gradient. */
static void conv2d_step(int16_t *w, const struct fixed_values *in, uint16_t channel, int8_t kernel_exponent,
                        const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - kernel_exponent);
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    const uint16_t in_step = (uint16_t)(s->stride_width * s->in_channels);
    const size_t in_row = (size_t)s->stride_height * s->in_width * s->in_channels;
    const size_t out_row = (size_t)s->out_width * s->out_channels;
    for (uint8_t tap_y = 0; tap_y < s->kernel_height; tap_y++) {
        const struct engine_span rows = conv2d_seen(tap_y, s->stride_height, s->pad_top, s->in_height, s->out_height);
        for (uint8_t tap_x = 0; tap_x < s->kernel_width; tap_x++, w += tap_size) {
            const struct engine_span columns =
                conv2d_seen(tap_x, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const int8_t *x = in->at + engine_in_offset(s, rows.first, columns.first, tap_y, tap_x) + channel;
            const int8_t *d = out_gradient->at + rows.first * out_row + (size_t)columns.first * s->out_channels;
            const struct fixed_walk walk = {
                columns.count,
                rows.count,
                (ptrdiff_t)(in_row - (size_t)in_step * columns.count),
                (ptrdiff_t)(out_row - (size_t)s->out_channels * columns.count),
                in_step,
                s->out_channels,
            };
            for (uint16_t o = 0; o < s->out_channels; o++) {
                fixed_add(w + o, fixed_rounded(-fixed_dot_bytes(x, d++, &walk), exponent));
            }
        }
    }
}

void fixed_conv2d_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights,
                                   const struct fixed_values *out_gradient, const struct engine_window *s)
{
    conv2d_bias(weights, out_gradient, s);
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        int16_t *w = fixed_trained(weights->kernel) + (size_t)channel * s->weight_out;
        conv2d_step(w, in, channel, weights->kernel_exponent, out_gradient, s);
    }
}

/* Adds one output row's share to the sums of all weights in use: [tap][in][out]. */
static void conv2d_line_sums(fixed_sum *sum, const int8_t *line, struct engine_span rows, const int8_t *out,
                             const struct engine_window *s)
{
    const uint16_t in_row = (uint16_t)(s->in_width * s->in_channels);
    const uint16_t in_step = (uint16_t)(s->stride_width * s->in_channels);
    sum += (uint32_t)rows.first * s->kernel_width * s->in_channels * s->out_channels;
    for (uint16_t row = 0; row < rows.count; row++, line += in_row) {
        for (uint8_t tap = 0; tap < s->kernel_width; tap++) {
            const struct engine_span columns =
                conv2d_seen(tap, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const int8_t *in = line + (uint16_t)(columns.first * s->stride_width + tap - s->pad_left) * s->in_channels;
            const int8_t *d = out + columns.first * s->out_channels;
            const struct fixed_walk walk = { columns.count, 1, 0, 0, in_step, s->out_channels };
            for (uint16_t i = 0; i < s->in_channels; i++) {
                for (uint16_t o = 0; o < s->out_channels; o++) {
                    *sum++ += fixed_dot_bytes(in + i, d + o, &walk);
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
    conv2d_bias(weights, out_gradient, s);
    memset(sum, 0, (size_t)taps * s->in_channels * s->out_channels * sizeof *sum);
    for (uint16_t y = 0; y < s->out_height; y++, d += (uint32_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        if (conv2d_line(line, in, rows, y, s)) {
            conv2d_line_sums(sum, line, rows, d, s);
        }
    }
    for (uint16_t tap = 0; tap < taps; tap++) {
        int16_t *w = fixed_trained(weights->kernel) + (uint32_t)tap * s->weight_in * s->weight_out;
        for (uint16_t i = 0; i < s->in_channels; i++, w += s->weight_out) {
            for (uint16_t o = 0; o < s->out_channels; o++) {
                fixed_add(w + o, fixed_rounded(-*sum++, exponent));
            }
        }
    }
}

/* The weights of one input channel as the way back meets them: by kernel row; within it by the distance of an input to
 * the stride's grid; there from the last tap to the first, as the outputs they lead to lie. */
static void conv2d_flip(int16_t *filter, const int16_t *w, const struct engine_window *s)
{
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    for (uint8_t row = 0; row < s->kernel_height; row++, w += s->kernel_width * tap_size) {
        for (uint8_t off = 0; off < s->stride_width && off < s->kernel_width; off++) {
            uint8_t tap = off;
            while (tap + s->stride_width < s->kernel_width) {
                tap = (uint8_t)(tap + s->stride_width);
            }
            for (;; tap = (uint8_t)(tap - s->stride_width)) {
                memcpy(filter, w + tap * tap_size, s->out_channels * sizeof *filter);
                filter += s->out_channels;
                if (tap == off) {
                    break;
                }
            }
        }
    }
}

/* An input channel on its way back, and where its scale stands. */
struct conv2d_in {
    int8_t *at; /* the tensor */
    uint16_t channel;
    uint32_t pixel; /* the next one: what lies before is a gradient already, as are the channels before */
    uint16_t slope;
    struct fixed_scale scale;
    uint8_t lost;
};

static void conv2d_halve(const struct conv2d_in *in, const struct engine_window *s)
{
    for (uint16_t before = 0; before < in->channel; before++) {
        fixed_halve(in->at + before, s->in_channels, (uint32_t)s->in_height * s->in_width);
    }
    fixed_halve(in->at + in->channel, s->in_channels, in->pixel);
}

/* Stores the gradient that comes to `sum`. */
static void conv2d_store(struct conv2d_in *in, int8_t *to, int32_t sum, const struct engine_window *s)
{
    if (*to <= 0) {
        sum = fixed_sloped(sum, in->slope);
    }
    int32_t value = fixed_stochastic(sum, in->scale.shift);
    while (!fixed_fits(&in->scale, value)) {
        conv2d_halve(in, s);
        value = fixed_stochastic(sum, in->scale.shift);
    }
    *to = (int8_t)value;
}

/* One row of an input channel. `out` is the output row that it fed through the first of `rows` kernel rows, the others
 * lying above; `filter` that kernel row's weights, and `filter_row` leads to the next. */
static void conv2d_back_row(struct conv2d_in *in, const int8_t *out, uint16_t rows, const int16_t *filter,
                            ptrdiff_t filter_row, const struct engine_window *s)
{
    const ptrdiff_t out_row = (ptrdiff_t)((size_t)s->out_width * s->out_channels);
    const uint8_t most = (uint8_t)((s->kernel_width + s->stride_width - 1) / s->stride_width); /* taps on the grid */
    const uint8_t full = (uint8_t)((s->kernel_width - 1) % s->stride_width); /* off by more: one tap less */
    struct fixed_walk walk = { .rows = rows, .w_stride = 1 };
    int8_t *at = in->at + (size_t)in->pixel * s->in_channels + in->channel;
    int_fast16_t last = s->pad_left / s->stride_width; /* output fed through tap `off` */
    uint8_t off = (uint8_t)(s->pad_left % s->stride_width);
    for (uint16_t x = s->in_width; x > 0; x--, at += s->in_channels, in->pixel++) {
        if (*at != 0 || in->slope != 0) { /* else a dead ReLU: nothing flows through it */
            const uint8_t taps = (uint8_t)(off <= full ? most : most - 1);
            const uint16_t before = (uint16_t)(off <= full ? off * most : (full + 1) * most + (off - full - 1) * (most - 1));
            const int_fast16_t begin = last - taps + 1;
            const int_fast16_t first = begin < 0 ? 0 : begin;
            const int_fast16_t end = last < (int_fast16_t)s->out_width ? last + 1 : (int_fast16_t)s->out_width;
            int32_t sum = 0;
            if (first < end) {
                walk.count = (uint16_t)((uint16_t)(end - first) * s->out_channels);
                walk.x_skip = -out_row - (ptrdiff_t)walk.count;
                walk.w_skip = filter_row - (ptrdiff_t)walk.count;
                sum = fixed_any_dot(out + (uint16_t)first * (size_t)s->out_channels,
                                     filter + (uint16_t)(before + (uint16_t)(first - begin)) * (size_t)s->out_channels,
                                     &walk, in->lost);
            }
            conv2d_store(in, at, sum, s);
        }
        if (++off == s->stride_width) {
            off = 0;
            last++;
        }
    }
}

/* Turns one input channel into its gradient; `filter` as conv2d_flip leaves it. */
static void conv2d_channel(struct conv2d_in *in, const int16_t *filter, const int8_t *out,
                           const struct engine_window *s)
{
    const ptrdiff_t filter_row = (ptrdiff_t)((size_t)s->kernel_width * s->out_channels);
    uint16_t last = (uint16_t)(s->pad_top / s->stride_height); /* output row fed through kernel row `off` */
    uint8_t off = (uint8_t)(s->pad_top % s->stride_height);
    for (uint16_t y = s->in_height; y > 0; y--) {
        uint16_t out_y = last, tap = off, rows = 0;
        for (; out_y >= s->out_height; out_y--) {
            tap = (uint16_t)(tap + s->stride_height);
        }
        for (uint16_t next = tap; next < s->kernel_height && rows <= out_y; rows++) {
            next = (uint16_t)(next + s->stride_height);
        }
        conv2d_back_row(in, out + (size_t)out_y * s->out_width * s->out_channels, rows,
                        filter + (ptrdiff_t)tap * filter_row, s->stride_height * filter_row, s);
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
    struct conv2d_in in = { in_out->at, 0, 0, slope, { *shift, 0 }, lost };
    if (!weights->frozen) {
        conv2d_bias(weights, out_gradient, s);
    }
    for (; in.channel < s->in_channels; in.channel++, in.pixel = 0) {
        const int16_t *w = weights->kernel + (size_t)in.channel * s->weight_out;
        conv2d_flip(filter, w, s); /* the weights as they were: those behind them may take their step at once */
        if (!weights->frozen) {
            conv2d_step(fixed_trained(w), in_out, in.channel, weights->kernel_exponent, out_gradient, s);
        }
        conv2d_channel(&in, filter, out_gradient->at, s);
    }
    in_out->exponent = (int8_t)(out_gradient->exponent + weights->kernel_exponent + lost + in.scale.shift);
    *shift = fixed_next_shift(&in.scale);
}
