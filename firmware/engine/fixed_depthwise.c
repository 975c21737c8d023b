/* Depthwise convolution in fixed point, channel by channel: input channel c makes output channels c * multiplier to
 * c * multiplier + multiplier - 1. The multiplier is out_channels / in_channels, at every width. */
#include "fixed_window.h"

static uint16_t depthwise_multiplier(const struct engine_window *s)
{
    return (uint16_t)(s->out_channels / s->in_channels);
}

/* The weights of one tap: from a tap to the next. */
static size_t depthwise_tap(const struct engine_window *s)
{
    return (size_t)s->weight_in * depthwise_multiplier(s);
}

static uint16_t depthwise_taps(const struct engine_window *s)
{
    return (uint16_t)(s->kernel_height * s->kernel_width);
}

/* The weights of `count` output channels from `w` on, tap by tap. */
static void depthwise_filter(int16_t *filter, const int16_t *w, uint16_t count, const struct engine_window *s,
                             bool in_flash)
{
    const size_t tap_size = depthwise_tap(s);
    for (uint16_t tap = depthwise_taps(s); tap > 0; tap--, w += tap_size) {
        for (uint16_t i = 0; i < count; i++) {
            *filter++ = fixed_weight(w + i, in_flash);
        }
    }
}

/// Forward ///

/* Outputs under way: where they lie, and where their sums and their scale stand. */
struct depthwise_out {
    int8_t *at;
    const int16_t *filter;
    uint16_t slope, multiplier;
    struct fixed_sums sums;
    struct fixed_scale scale;
};

static struct depthwise_out depthwise_begin(int8_t *at, int8_t in_exponent, const struct fixed_weights *weights,
                                            const int16_t *filter, uint16_t slope, uint8_t shift,
                                            const struct engine_window *s)
{
    const struct fixed_sums sums = fixed_sums(in_exponent, weights, depthwise_taps(s));
    return (struct depthwise_out){ at, filter, slope, depthwise_multiplier(s), sums, { shift, 0 } };
}

static void depthwise_end(struct fixed_values *out, uint8_t *shift, const struct depthwise_out *state)
{
    out->exponent = fixed_exponent((int16_t)(state->sums.exponent + state->scale.shift));
    *shift = fixed_next_shift(&state->scale);
}

/* Sum of input × weight where one output sees the input; each kernel row shifted by `lost`. */
static int32_t depthwise_sum(const int8_t *in, const int16_t *filter, uint8_t rows, uint8_t columns, uint8_t lost,
                             const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    int32_t sum = 0;
    for (; rows > 0; rows--, in += in_row, filter += s->kernel_width) {
        const int8_t *x = in;
        int32_t part = 0;
        for (uint8_t column = 0; column < columns; column++, x += s->in_channels) {
            part += (int32_t)*x * filter[column];
        }
        sum += part >> lost;
    }
    return sum;
}

/* One output channel of one output row; `in` is its input channel in the first input row that it sees. */
static void depthwise_row(struct depthwise_out *out, int8_t *to, const int8_t *in, struct engine_span rows,
                          int32_t start, const struct engine_window *s)
{
    for (uint16_t x = 0; x < s->out_width; x++, to += s->out_channels) {
        const struct engine_span columns = engine_tap_columns(s, x);
        const uint16_t in_x = (uint16_t)(x * s->stride_width + columns.first - s->pad_left);
        const int16_t *w = out->filter + (uint16_t)(rows.first * s->kernel_width + columns.first);
        const int32_t sum = start + depthwise_sum(in + (size_t)in_x * s->in_channels, w, (uint8_t)rows.count,
                                                  (uint8_t)columns.count, out->sums.lost, s);
        const int32_t activated = fixed_activated(sum, out->slope);
        int32_t value;
        while (!fixed_fits(&out->scale, value = fixed_nearest(activated, out->scale.shift))) {
            /* what is not written yet will be */
            fixed_halve(out->at, 1, (uint32_t)s->out_height * s->out_width * s->out_channels);
        }
        *to = (int8_t)value;
    }
}

static void depthwise_forward(struct fixed_values *out, const struct fixed_values *in,
                              const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                              const struct engine_window *s, bool in_flash)
{
    struct depthwise_out state = depthwise_begin(out->at, in->exponent, weights, filter, slope, *shift, s);
    for (uint16_t channel = 0; channel < s->out_channels; channel++) {
        const int32_t start = fixed_start(weights->bias, channel, state.sums.bias_exponent, in_flash);
        const int8_t *from = in->at + channel / state.multiplier;
        int8_t *to = out->at + channel;
        depthwise_filter(filter, weights->kernel + channel, 1, s, in_flash);
        for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
            const struct engine_span rows = engine_tap_rows(s, y);
            const uint16_t in_y = (uint16_t)(y * s->stride_height + rows.first - s->pad_top);
            depthwise_row(&state, to, from + (size_t)in_y * s->in_width * s->in_channels, rows, start, s);
        }
    }
    depthwise_end(out, shift, &state);
}

static void depthwise_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                     const struct fixed_weights *weights, int16_t *filter, int8_t *line,
                                     uint16_t slope, uint8_t *shift, const struct engine_window *s, bool in_flash)
{
    struct depthwise_out state = depthwise_begin(out->at, in->exponent, weights, filter, slope, *shift, s);
    int8_t *to = out->at;
    for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        (void)fixed_line(line, in, rows, y, s);
        for (uint16_t channel = 0; channel < s->out_channels; channel++) {
            const int32_t start = fixed_start(weights->bias, channel, state.sums.bias_exponent, in_flash);
            depthwise_filter(filter, weights->kernel + channel, 1, s, in_flash);
            depthwise_row(&state, to + channel, line + channel / state.multiplier, rows, start, s);
        }
    }
    depthwise_end(out, shift, &state);
}

void fixed_depthwise_forward(struct fixed_values *out, const struct fixed_values *in,
                             const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                             const struct engine_window *s)
{
    depthwise_forward(out, in, weights, filter, slope, shift, s, false);
}

void fixed_depthwise_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                    const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                    uint8_t *shift, const struct engine_window *s)
{
    depthwise_forward_sample(out, in, weights, filter, line, slope, shift, s, false);
}

#if defined(__AVR__)
void fixed_depthwise_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                    const struct fixed_weights *weights, int16_t *filter, uint16_t slope,
                                    uint8_t *shift, const struct engine_window *s)
{
    depthwise_forward(out, in, weights, filter, slope, shift, s, true);
}

void fixed_depthwise_forward_sample_frozen(struct fixed_values *out, const struct fixed_input *in,
                                           const struct fixed_weights *weights, int16_t *filter, int8_t *line,
                                           uint16_t slope, uint8_t *shift, const struct engine_window *s)
{
    depthwise_forward_sample(out, in, weights, filter, line, slope, shift, s, true);
}
#endif

/// Backward ///

/* Sum of input × output gradient, side by side for `rows` times `columns` outputs. */
static int32_t depthwise_correlation(const int8_t *in, const int8_t *d, uint16_t rows, uint16_t columns,
                                     const struct engine_window *s)
{
    const size_t in_row = (size_t)s->stride_height * s->in_width * s->in_channels;
    const size_t in_step = (size_t)s->stride_width * s->in_channels;
    const size_t out_row = (size_t)s->out_width * s->out_channels;
    int32_t sum = 0;
    for (; rows > 0; rows--, in += in_row, d += out_row) {
        const int8_t *x = in, *at = d;
        for (uint16_t left = columns; left > 0; left--, x += in_step, at += s->out_channels) {
            sum += (int16_t)(*x * *at);
        }
    }
    return sum;
}

/* The step of the weights `w` between an input channel, which begins at `in`, and its outputs, which begin at `out`. */
static void depthwise_step(int16_t *w, const int8_t *in, const int8_t *out, int16_t exponent,
                           const struct engine_window *s)
{
    const size_t tap_size = depthwise_tap(s);
    const uint16_t multiplier = depthwise_multiplier(s);
    for (uint8_t tap_y = 0; tap_y < s->kernel_height; tap_y++) {
        const struct engine_span rows = fixed_seen(tap_y, s->stride_height, s->pad_top, s->in_height, s->out_height);
        for (uint8_t tap_x = 0; tap_x < s->kernel_width; tap_x++, w += tap_size) {
            const struct engine_span columns =
                fixed_seen(tap_x, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const int8_t *x = in + engine_in_offset(s, rows.first, columns.first, tap_y, tap_x);
            const int8_t *d = out + ((size_t)rows.first * s->out_width + columns.first) * s->out_channels;
            for (uint16_t i = 0; i < multiplier; i++) {
                const int32_t sum = depthwise_correlation(x, d + i, rows.count, columns.count, s);
                fixed_add(w + i, fixed_rounded(-sum, exponent));
            }
        }
    }
}

void fixed_depthwise_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights,
                                      const struct fixed_values *out_gradient, const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - weights->kernel_exponent);
    fixed_bias_step(weights, out_gradient, s);
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        const size_t first = (size_t)channel * depthwise_multiplier(s);
        depthwise_step(fixed_trained(weights->kernel) + first, in->at + channel, out_gradient->at + first, exponent, s);
    }
}

/* Adds one output row's share to the sums of all weights in use: [tap][out]. */
static void depthwise_line_sums(fixed_sum *sum, const int8_t *line, struct engine_span rows, const int8_t *out,
                                const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    const uint16_t multiplier = depthwise_multiplier(s);
    sum += (size_t)rows.first * s->kernel_width * s->out_channels;
    for (uint16_t row = 0; row < rows.count; row++, line += in_row) {
        for (uint8_t tap = 0; tap < s->kernel_width; tap++) {
            const struct engine_span columns =
                fixed_seen(tap, s->stride_width, s->pad_left, s->in_width, s->out_width);
            const uint16_t in_x = (uint16_t)(columns.first * s->stride_width + tap - s->pad_left);
            const int8_t *x = line + (size_t)in_x * s->in_channels;
            const int8_t *d = out + (size_t)columns.first * s->out_channels;
            for (uint16_t o = 0; o < s->out_channels; o++) {
                *sum++ += depthwise_correlation(x + o / multiplier, d + o, 1, columns.count, s);
            }
        }
    }
}

void fixed_depthwise_backward_sample(const struct fixed_input *in, const struct fixed_weights *weights, fixed_sum *sum,
                                     int8_t *line, const struct fixed_values *out_gradient,
                                     const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(in->exponent + out_gradient->exponent - weights->kernel_exponent);
    const int8_t *d = out_gradient->at;
    int16_t *w = fixed_trained(weights->kernel);
    fixed_bias_step(weights, out_gradient, s);
    memset(sum, 0, (size_t)depthwise_taps(s) * s->out_channels * sizeof *sum);
    for (uint16_t y = 0; y < s->out_height; y++, d += (size_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        if (fixed_line(line, in, rows, y, s)) {
            depthwise_line_sums(sum, line, rows, d, s);
        }
    }
    for (uint16_t tap = depthwise_taps(s); tap > 0; tap--, w += depthwise_tap(s)) {
        for (uint16_t o = 0; o < s->out_channels; o++) {
            fixed_add(w + o, fixed_rounded(-*sum++, exponent));
        }
    }
}

/* Sum of weight × output gradient over what input (y, x) fed; `out` and `filter` are of the input's channel alone. */
static int32_t depthwise_fed_sum(const int16_t *filter, const int8_t *out, struct engine_span rows, uint16_t y,
                                 uint16_t x, uint8_t lost, const struct engine_window *s)
{
    const struct engine_span columns = engine_fed_columns(s, x);
    const uint16_t multiplier = depthwise_multiplier(s);
    int32_t sum = 0;
    for (uint16_t row = 0; row < rows.count; row++) {
        for (uint16_t column = 0; column < columns.count; column++) {
            const uint16_t out_y = (uint16_t)(rows.first + row), out_x = (uint16_t)(columns.first + column);
            const int16_t *w = filter + (size_t)engine_tap(s, y, x, out_y, out_x) * multiplier;
            const int8_t *d = out + ((size_t)out_y * s->out_width + out_x) * s->out_channels;
            int32_t part = 0;
            for (uint16_t i = 0; i < multiplier; i++) {
                part += (int32_t)d[i] * w[i];
            }
            sum += part >> lost;
        }
    }
    return sum;
}

/* Halves what is a gradient already: the channels before `channel`, and of this one the pixels before `pixel`. */
static void depthwise_halve(int8_t *at, uint16_t channel, uint32_t pixel, const struct engine_window *s)
{
    for (uint16_t before = 0; before < channel; before++) {
        fixed_halve(at + before, s->in_channels, (uint32_t)s->in_height * s->in_width);
    }
    fixed_halve(at + channel, s->in_channels, pixel);
}

void fixed_depthwise_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                              int16_t *filter, const struct fixed_values *out_gradient, uint8_t *shift,
                              const struct engine_window *s)
{
    const uint16_t multiplier = depthwise_multiplier(s);
    const uint8_t lost = fixed_lost((uint32_t)depthwise_taps(s) * multiplier);
    const int16_t exponent = (int16_t)(in_out->exponent + out_gradient->exponent - weights->kernel_exponent);
    struct fixed_scale scale = { *shift, 0 };
    if (!weights->frozen) {
        fixed_bias_step(weights, out_gradient, s);
    }
    for (uint16_t channel = 0; channel < s->in_channels; channel++) {
        const size_t first = (size_t)channel * multiplier;
        int8_t *at = in_out->at + channel;
        depthwise_filter(filter, weights->kernel + first, multiplier, s, false); /* as they were before their step */
        if (!weights->frozen) {
            depthwise_step(fixed_trained(weights->kernel) + first, at, out_gradient->at + first, exponent, s);
        }
        uint32_t pixel = 0;
        for (uint16_t y = 0; y < s->in_height; y++) {
            const struct engine_span rows = engine_fed_rows(s, y);
            for (uint16_t x = 0; x < s->in_width; x++, pixel++, at += s->in_channels) {
                if (*at == 0 && slope == 0) { /* a dead ReLU: nothing flows through it */
                    continue;
                }
                int32_t sum = depthwise_fed_sum(filter, out_gradient->at + first, rows, y, x, lost, s);
                sum = *at > 0 ? sum : fixed_sloped(sum, slope);
                int32_t value;
                while (!fixed_fits(&scale, value = fixed_stochastic(sum, scale.shift))) {
                    depthwise_halve(in_out->at, channel, pixel, s);
                }
                *at = (int8_t)value;
            }
        }
    }
    in_out->exponent =
        fixed_exponent((int16_t)(out_gradient->exponent + weights->kernel_exponent + lost + scale.shift));
    *shift = fixed_next_shift(&scale);
}
