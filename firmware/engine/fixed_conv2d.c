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
    const uint16_t taps = (uint16_t)(s->kernel_height * s->kernel_width);
    const int16_t *w = kernel + channel;
    for (uint16_t tap = 0; tap < taps; tap++) {
        const int16_t *at = w;
        for (uint16_t i = 0; i < s->in_channels; i++, at += s->weight_out) {
            *filter++ = *at;
        }
        w += (uint32_t)s->weight_in * s->weight_out;
    }
}

/* Outputs under way: all of them, and where their scale stands. */
struct conv2d_out {
    int8_t *at;
    uint32_t count;
    struct fixed_scale scale;
};

/* One output channel of one output row. `in` is where the input row under kernel row `rows.first` begins. */
static void conv2d_row(struct conv2d_out *out, int8_t *to, const int8_t *in, struct engine_span rows, int32_t start,
                       const int16_t *filter, const struct conv2d_sums *sums, uint16_t slope,
                       const struct engine_window *s)
{
    const uint32_t in_row = (uint32_t)s->in_width * s->in_channels;
    for (uint16_t x = 0; x < s->out_width; x++, to += s->out_channels) {
        const struct engine_span columns = engine_tap_columns(s, x);
        const uint16_t first = (uint16_t)(columns.first * s->in_channels);
        const uint16_t count = (uint16_t)(columns.count * s->in_channels);
        const int8_t *from = in + ((int32_t)x * s->stride_width - s->pad_left + columns.first) * s->in_channels;
        const int16_t *w = filter + rows.first * sums->row + first;
        int32_t sum = start;
        for (uint16_t row = 0; row < rows.count; row++, from += in_row, w += sums->row) {
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
        for (uint16_t y = 0; y < s->out_height; y++, to += (uint32_t)s->out_width * s->out_channels) {
            const struct engine_span rows = engine_tap_rows(s, y);
            const int32_t in_y = (int32_t)y * s->stride_height - s->pad_top + rows.first;
            conv2d_row(&state, to, in->at + in_y * s->in_width * s->in_channels, rows, start, filter, &sums, slope, s);
        }
    }
    out->exponent = (int8_t)(sums.exponent + state.scale.shift);
    *shift = fixed_next_shift(&state.scale);
}

/* The input rows that output row `y` sees, as 8-bit values; false if all of them are zero. */
static bool conv2d_line(int8_t *line, const struct fixed_input *in, struct engine_span rows, uint16_t y,
                        const struct engine_window *s)
{
    const uint32_t in_row = (uint32_t)s->in_width * s->in_channels;
    uint32_t at = ((uint32_t)y * s->stride_height + rows.first - s->pad_top) * in_row;
    int8_t any = 0;
    for (const uint32_t end = at + rows.count * in_row; at < end; at++) {
        *line = fixed_input_at(in, at);
        any |= *line++;
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
    for (uint16_t y = 0; y < s->out_height; y++, to += (uint32_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        (void)conv2d_line(line, in, rows, y, s);
        for (uint16_t channel = 0; channel < s->out_channels; channel++) {
            const int32_t start = fixed_start(weights->bias, channel, sums.bias_exponent);
            conv2d_filter(filter, weights->kernel, channel, s);
            conv2d_row(&state, to + channel, line, rows, start, filter, &sums, slope, s);
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
    const uint16_t first = tap >= pad ? 0 : (uint16_t)((pad - tap + stride - 1) / stride);
    const int32_t last = ((int32_t)in_size - 1 + pad - tap) / stride; /* the tap of output `last` is inside */
    const int32_t end = (int32_t)in_size - 1 + pad - tap < 0 ? 0 : (last + 1 < out_size ? last + 1 : out_size);
    return (struct engine_span){ first, (uint16_t)(end > first ? end - first : 0) };
}

/* Sum over the output pixels of input channel `in` under a tap times output gradient `out`. */
static int32_t conv2d_correlation(const int8_t *in, const int8_t *out, uint8_t tap_y, uint8_t tap_x,
                                  const struct engine_window *s)
{
    const struct engine_span rows = conv2d_seen(tap_y, s->stride_height, s->pad_top, s->in_height, s->out_height);
    const struct engine_span columns = conv2d_seen(tap_x, s->stride_width, s->pad_left, s->in_width, s->out_width);
    const uint32_t in_row = (uint32_t)s->stride_height * s->in_width * s->in_channels;
    const uint32_t out_row = (uint32_t)s->out_width * s->out_channels;
    int32_t sum = 0;
    in += engine_in_offset(s, rows.first, columns.first, tap_y, tap_x);
    out += ((uint32_t)rows.first * s->out_width + columns.first) * s->out_channels;
    for (uint16_t row = 0; row < rows.count; row++, in += in_row, out += out_row) {
        sum += fixed_dot_bytes(in, (uint16_t)(s->stride_width * s->in_channels), out, s->out_channels, columns.count);
    }
    return sum;
}

/* What the weights between input channel `in` and all outputs owe, tap by tap. */
static void conv2d_deltas(int16_t *delta, const struct fixed_values *in, uint16_t channel, int8_t kernel_exponent,
                          const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - kernel_exponent);
    for (uint8_t tap_y = 0; tap_y < s->kernel_height; tap_y++) {
        for (uint8_t tap_x = 0; tap_x < s->kernel_width; tap_x++) {
            for (uint16_t o = 0; o < s->out_channels; o++) {
                const int32_t sum = conv2d_correlation(in->at + channel, out_gradient->at + o, tap_y, tap_x, s);
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
            const int8_t *in = line + (columns.first * s->stride_width + tap - s->pad_left) * s->in_channels;
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

/* Sum of weight × output gradient over what input (y, x) fed; `w` is the input channel's weights under tap 0. */
static int32_t conv2d_fed_sum(const int16_t *w, const int8_t *out, struct engine_span rows, uint16_t y, uint16_t x,
                              uint8_t lost, const struct engine_window *s)
{
    const struct engine_span columns = engine_fed_columns(s, x);
    const uint32_t tap = (uint32_t)s->weight_in * s->weight_out;
    int32_t sum = 0;
    if (columns.count == 0 || rows.count == 0) {
        return 0;
    }
    w += engine_tap(s, y, x, rows.first, columns.first) * tap;
    out += ((uint32_t)rows.first * s->out_width + columns.first) * s->out_channels;
    for (uint16_t row = 0; row < rows.count; row++, out += (uint32_t)s->out_width * s->out_channels) {
        const int8_t *d = out;
        const int16_t *at = w; /* the next output to the right is reached one stride of taps before */
        for (uint16_t column = 0; column < columns.count; column++, d += s->out_channels) {
            sum += fixed_long_dot(d, at, 1, s->out_channels, lost);
            at -= s->stride_width * tap;
        }
        w -= (uint32_t)s->stride_height * s->kernel_width * tap;
    }
    return sum;
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
    for (uint16_t y = 0; y < s->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(s, y);
        for (uint16_t x = 0; x < s->in_width; x++, pixel++, at += s->in_channels) {
            if (*at == 0 && slope == 0) { /* a dead ReLU: nothing flows through it */
                continue;
            }
            int32_t sum = conv2d_fed_sum(w, out, rows, y, x, lost, s);
            sum = *at > 0 ? sum : fixed_sloped(sum, slope);
            int32_t value = fixed_stochastic(sum, scale->shift);
            while (!fixed_fits(scale, value)) {
                conv2d_halve(in_out, channel, pixel, s);
                value = fixed_stochastic(sum, scale->shift);
            }
            *at = (int8_t)value;
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
