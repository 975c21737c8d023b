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

/* One output channel of one output row. `in` is where the first input row inside the image begins that it sees, and
 * `filter` the weights of that row. */
static void conv2d_row(struct conv2d_out *out, int8_t *to, const int8_t *in, uint8_t rows, int32_t start,
                       const int16_t *filter, const struct conv2d_sums *sums, uint16_t slope,
                       const struct engine_window *s)
{
    const uint16_t channels = s->in_channels;
    const size_t in_row = (size_t)s->in_width * channels;
    const int_fast16_t end = (int_fast16_t)s->in_width;
    int_fast16_t left = -s->pad_left; /* the input column under the kernel's first */
    for (uint16_t x = s->out_width; x > 0; x--, to += s->out_channels, left += s->stride_width) {
        const uint16_t first = left < 0 ? (uint16_t)-left : 0;
        const uint16_t last = left + s->kernel_width > end ? (uint16_t)(end - left) : s->kernel_width;
        const uint16_t count = (uint16_t)((last - first) * channels);
        const int8_t *from = in + (uint16_t)(left + (int_fast16_t)first) * (size_t)channels;
        const int16_t *w = filter + (uint16_t)(first * channels);
        int32_t sum = start;
        for (uint8_t row = rows; row > 0; row--, from += in_row, w += sums->row) {
            sum += fixed_long_dot(from, w, 1, count, sums->lost);
        }
        sum = sum < 0 ? fixed_sloped(sum, slope) : sum;
        int32_t value = fixed_nearest(sum, out->scale.shift);
        while (!fixed_fits(&out->scale, value)) {
            fixed_halve(out->at, 1, out->count); /* what is not written yet will be */
            value = fixed_nearest(sum, out->scale.shift);
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
    const uint16_t pixels = (uint16_t)((uint32_t)s->out_height * s->out_width);
    static const int8_t one = 1;
    for (uint16_t channel = 0; weights->bias != NULL && channel < s->out_channels; channel++) {
        const int32_t sum = fixed_dot_bytes(&one, 0, out_gradient->at + channel, s->out_channels, pixels);
        fixed_add(fixed_trained(weights->bias) + channel,
                  fixed_rounded(-sum, (int16_t)(out_gradient->exponent - weights->bias_exponent)));
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

/* What the weights between input channel `channel` and all outputs owe, tap by tap: the sums over the output pixels of
 * the input under the tap times the output gradient. */
static void conv2d_deltas(int16_t *delta, const struct fixed_values *in, uint16_t channel, int8_t kernel_exponent,
                          const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - kernel_exponent);
    const uint16_t in_step = (uint16_t)(s->stride_width * s->in_channels);
    const size_t in_row = (size_t)s->stride_height * s->in_width * s->in_channels;
    const size_t out_row = (size_t)s->out_width * s->out_channels;
    for (uint8_t tap_y = 0; tap_y < s->kernel_height; tap_y++) {
        const struct engine_span rows = conv2d_seen(tap_y, s->stride_height, s->pad_top, s->in_height, s->out_height);
        for (uint8_t tap_x = 0; tap_x < s->kernel_width; tap_x++) {
            const struct engine_span columns =
                conv2d_seen(tap_x, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const int8_t *x = in->at + engine_in_offset(s, rows.first, columns.first, tap_y, tap_x) + channel;
            const int8_t *d = out_gradient->at + rows.first * out_row + (size_t)columns.first * s->out_channels;
            for (uint16_t o = 0; o < s->out_channels; o++, d++) {
                const int8_t *x_row = x, *d_row = d;
                int32_t sum = 0;
                for (uint16_t row = rows.count; row > 0; row--, x_row += in_row, d_row += out_row) {
                    sum += fixed_dot_bytes(x_row, in_step, d_row, s->out_channels, columns.count);
                }
                *delta++ = fixed_rounded(-sum, exponent);
            }
        }
    }
}

static void conv2d_apply(int16_t *kernel, const int16_t *delta, const struct engine_window *s)
{
    const uint16_t taps = (uint16_t)(s->kernel_height * s->kernel_width);
    for (uint16_t tap = 0; tap < taps; tap++, kernel += (uint32_t)s->weight_in * s->weight_out) {
        for (uint16_t o = 0; o < s->out_channels; o++) {
            fixed_add(kernel + o, *delta++);
        }
    }
}

void fixed_conv2d_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights, int16_t *delta,
                                   const struct fixed_values *out_gradient, const struct engine_window *s)
{
    conv2d_bias(weights, out_gradient, s);
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        conv2d_deltas(delta, in, channel, weights->kernel_exponent, out_gradient, s);
        conv2d_apply(fixed_trained(weights->kernel) + (uint32_t)channel * s->weight_out, delta, s);
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
            for (uint16_t i = 0; i < s->in_channels; i++) {
                for (uint16_t o = 0; o < s->out_channels; o++) {
                    *sum++ += fixed_dot_bytes(in + i, in_step, d + o, s->out_channels, columns.count);
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

/* How an input lies to the outputs it fed, along one axis: the last of them that there would be without end, and the
 * kernel tap between the two; the output before it was fed through the tap one stride further. */
struct conv2d_reach {
    uint16_t out;
    uint8_t tap;
};

static ENGINE_INLINE struct conv2d_reach conv2d_first_reach(uint8_t pad, uint8_t stride)
{
    return (struct conv2d_reach){ (uint16_t)(pad / stride), (uint8_t)(pad % stride) };
}

static ENGINE_INLINE void conv2d_next_reach(struct conv2d_reach *reach, uint8_t stride)
{
    if (++reach->tap == stride) {
        reach->tap = 0;
        reach->out++;
    }
}

/* Brings the first output inside the image; false if the kernel does not reach it. */
static ENGINE_INLINE bool conv2d_clip(struct conv2d_reach *reach, uint8_t stride, uint8_t kernel, uint16_t outs)
{
    uint16_t tap = reach->tap;
    for (; reach->out >= outs; reach->out--) {
        tap = (uint16_t)(tap + stride);
    }
    reach->tap = (uint8_t)tap;
    return tap < kernel;
}

/* Sum of weight × output gradient over what an input fed; `w` is the input channel's weights under tap 0. */
static int32_t conv2d_fed_sum(const int16_t *w, const int8_t *out, struct conv2d_reach y, struct conv2d_reach x,
                              uint8_t lost, const struct engine_window *s)
{
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    int32_t sum = 0;
    if (!conv2d_clip(&y, s->stride_height, s->kernel_height, s->out_height) ||
        !conv2d_clip(&x, s->stride_width, s->kernel_width, s->out_width)) {
        return 0;
    }
    for (;; y.out--) {
        const int8_t *d = out + ((size_t)y.out * s->out_width + x.out) * s->out_channels;
        const int16_t *at = w + (size_t)(y.tap * s->kernel_width + x.tap) * tap_size;
        uint16_t tap = x.tap, left = x.out;
        for (;; left--, d -= s->out_channels, at += s->stride_width * tap_size) {
            sum += fixed_long_dot(d, at, 1, s->out_channels, lost);
            tap = (uint16_t)(tap + s->stride_width);
            if (tap >= s->kernel_width || left == 0) {
                break;
            }
        }
        if (y.out == 0 || y.tap + s->stride_height >= s->kernel_height) {
            return sum;
        }
        y.tap = (uint8_t)(y.tap + s->stride_height);
    }
}

/* What is a gradient already: the channels before `channel`, and of this one the pixels before `pixel`. */
static void conv2d_halve(int8_t *in_out, uint16_t channel, uint32_t pixel, const struct engine_window *s)
{
    for (uint16_t before = 0; before < channel; before++) {
        fixed_halve(in_out + before, s->in_channels, (uint32_t)s->in_height * s->in_width);
    }
    fixed_halve(in_out + channel, s->in_channels, pixel);
}

/* Turns one input channel into its gradient. */
static void conv2d_channel(int8_t *in_out, uint16_t channel, uint16_t slope, const int16_t *w, const int8_t *out,
                           struct fixed_scale *scale, uint8_t lost, const struct engine_window *s)
{
    int8_t *at = in_out + channel;
    uint32_t pixel = 0;
    struct conv2d_reach y = conv2d_first_reach(s->pad_top, s->stride_height);
    for (uint16_t rows = s->in_height; rows > 0; rows--, conv2d_next_reach(&y, s->stride_height)) {
        struct conv2d_reach x = conv2d_first_reach(s->pad_left, s->stride_width);
        for (uint16_t columns = s->in_width; columns > 0; columns--, conv2d_next_reach(&x, s->stride_width)) {
            if (*at != 0 || slope != 0) { /* else a dead ReLU: nothing flows through it */
                int32_t sum = conv2d_fed_sum(w, out, y, x, lost, s);
                sum = *at > 0 ? sum : fixed_sloped(sum, slope);
                int32_t value = fixed_stochastic(sum, scale->shift);
                while (!fixed_fits(scale, value)) {
                    conv2d_halve(in_out, channel, pixel, s);
                    value = fixed_stochastic(sum, scale->shift);
                }
                *at = (int8_t)value;
            }
            at += s->in_channels;
            pixel++;
        }
    }
}

void fixed_conv2d_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                           int16_t *delta, const struct fixed_values *out_gradient, uint8_t *shift,
                           const struct engine_window *s)
{
    struct fixed_scale scale = { *shift, 0 };
    const uint8_t lost =
        fixed_lost((uint32_t)s->kernel_height * s->kernel_width * s->out_channels);
    if (!weights->frozen) {
        conv2d_bias(weights, out_gradient, s);
    }
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        int16_t *w = fixed_trained(weights->kernel) + (uint32_t)channel * s->weight_out;
        if (!weights->frozen) { /* before the input is gone, but taken only after the weights were read */
            conv2d_deltas(delta, in_out, channel, weights->kernel_exponent, out_gradient, s);
        }
        conv2d_channel(in_out->at, channel, slope, w, out_gradient->at, &scale, lost, s);
        if (!weights->frozen) {
            conv2d_apply(w, delta, s);
        }
    }
    in_out->exponent = (int8_t)(out_gradient->exponent + weights->kernel_exponent + lost + scale.shift);
    *shift = fixed_next_shift(&scale);
}
