/* Two-dimensional convolution in fixed point, the way forward; in one dimension the height is 1. Channels are taken two
 * at a time: their weights are gathered side by side, in the order in which the values that they meet lie. */
#include "fixed_window.h"

struct conv2d_sums {
    size_t row; /* filter weights from one kernel row to the next */
    struct fixed_sums from;
};

static struct conv2d_sums conv2d_sums(int8_t in_exponent, const struct fixed_weights *weights,
                                      const struct engine_window *s)
{
    const uint16_t row = (uint16_t)(s->kernel_width * s->in_channels);
    const struct fixed_sums from = fixed_sums(in_exponent, weights, (uint32_t)s->kernel_height * row);
    return (struct conv2d_sums){ 2 * (size_t)row, from };
}

/* Two output channels on their way: where their sums begin, and their weights; all outputs, and where their scale
 * stands. */
struct conv2d_out {
    int8_t *at;
    uint32_t count;
    struct fixed_scale scale;
    uint16_t slope;
    uint8_t channels; /* of the pair: 1 or 2 */
    int32_t start[2];
};

/* Takes the channels from `channel` on; their weights, alternating, into `filter`. */
static void conv2d_take(struct conv2d_out *out, int16_t *filter, uint16_t channel, const struct fixed_weights *weights,
                        const struct conv2d_sums *sums, const struct engine_window *s, bool in_flash)
{
    const size_t tap_size = (size_t)s->weight_in * s->weight_out;
    const int16_t *w = weights->kernel + channel;
    out->channels = fixed_pair(s->out_channels, channel);
    for (uint8_t i = 0; i < out->channels; i++) {
        out->start[i] = fixed_start(weights->bias, (uint16_t)(channel + i), sums->from.bias_exponent, in_flash);
    }
    for (uint16_t tap = (uint16_t)(s->kernel_height * s->kernel_width); tap > 0; tap--, w += tap_size) {
        const int16_t *at = w;
        for (uint16_t i = s->in_channels; i > 0; i--, at += s->weight_out) {
            *filter++ = fixed_weight(at, in_flash);
            *filter++ = out->channels > 1 ? fixed_weight(at + 1, in_flash) : 0;
        }
    }
}

static void conv2d_put(struct conv2d_out *out, int8_t *to, int32_t sum)
{
    sum = fixed_activated(sum, out->slope);
    int32_t value = fixed_nearest(sum, out->scale.shift);
    while (!fixed_fits(&out->scale, value)) {
        fixed_halve(out->at, 1, out->count); /* what is not written yet will be */
        value = fixed_nearest(sum, out->scale.shift);
    }
    *to = (int8_t)value;
}

/* A pair of output channels in one output row. `in` is where the first input row inside the image begins that it sees, of
 * `rows`, and `filter` the weights of that row. */
static void conv2d_row(struct conv2d_out *out, int8_t *to, const int8_t *in, uint8_t rows, const int16_t *filter,
                       const struct conv2d_sums *sums, const struct engine_window *s)
{
    const uint16_t channels = s->in_channels;
    const size_t in_row = (size_t)s->in_width * channels;
    const int_fast16_t end = (int_fast16_t)s->in_width;
    struct fixed_walk walk = { .rows = rows, .w_stride = 2 };
    int_fast16_t left = -s->pad_left; /* the input column under the kernel's first */
    for (uint16_t x = s->out_width; x > 0; x--, to += s->out_channels, left += s->stride_width) {
        const uint16_t first = left < 0 ? (uint16_t)-left : 0;
        const uint16_t last = left + s->kernel_width > end ? (uint16_t)(end - left) : s->kernel_width;
        int32_t sum[2];
        walk.count = (uint16_t)((last - first) * channels);
        walk.x_skip = (ptrdiff_t)(in_row - walk.count);
        walk.w_skip = (ptrdiff_t)sums->row - 2 * (ptrdiff_t)walk.count;
        fixed_any_dot_pair(sum, in + (uint16_t)(left + (int_fast16_t)first) * (size_t)channels,
                           filter + 2 * (size_t)first * channels, &walk, out->channels, sums->from.lost);
        conv2d_put(out, to, sum[0] + out->start[0]);
        if (out->channels > 1) {
            conv2d_put(out, to + 1, sum[1] + out->start[1]);
        }
    }
}

static struct conv2d_out conv2d_out(struct fixed_values *out, uint16_t slope, uint8_t shift,
                                    const struct engine_window *s)
{
    const uint32_t count = (uint32_t)s->out_height * s->out_width * s->out_channels;
    return (struct conv2d_out){ .at = out->at, .count = count, .scale = { shift, 0 }, .slope = slope };
}

static void conv2d_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                           int16_t *filter, uint16_t slope, uint8_t *shift, const struct engine_window *s,
                           bool in_flash)
{
    const struct conv2d_sums sums = conv2d_sums(in->exponent, weights, s);
    struct conv2d_out state = conv2d_out(out, slope, *shift, s);
    for (uint16_t channel = 0; channel < s->out_channels; channel = (uint16_t)(channel + 2)) {
        int8_t *to = out->at + channel;
        conv2d_take(&state, filter, channel, weights, &sums, s, in_flash);
        for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
            const struct engine_span rows = engine_tap_rows(s, y);
            const uint16_t in_y = (uint16_t)(y * s->stride_height + rows.first - s->pad_top);
            conv2d_row(&state, to, in->at + (size_t)in_y * s->in_width * s->in_channels, (uint8_t)rows.count,
                       filter + rows.first * sums.row, &sums, s);
        }
    }
    out->exponent = fixed_exponent((int16_t)(sums.from.exponent + state.scale.shift));
    *shift = fixed_next_shift(&state.scale);
}

static void conv2d_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                  const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                  uint8_t *shift, const struct engine_window *s, bool in_flash)
{
    const struct conv2d_sums sums = conv2d_sums(in->exponent, weights, s);
    struct conv2d_out state = conv2d_out(out, slope, *shift, s);
    int8_t *to = out->at;
    for (uint16_t y = 0; y < s->out_height; y++, to += (size_t)s->out_width * s->out_channels) {
        const struct engine_span rows = engine_tap_rows(s, y);
        const bool any = fixed_line(line, in, rows, y, s);
        for (uint16_t channel = 0; channel < s->out_channels; channel = (uint16_t)(channel + 2)) {
            conv2d_take(&state, filter, channel, weights, &sums, s, in_flash);
            conv2d_row(&state, to + channel, line, (uint8_t)(any ? rows.count : 0), filter + rows.first * sums.row,
                       &sums, s);
        }
    }
    out->exponent = fixed_exponent((int16_t)(sums.from.exponent + state.scale.shift));
    *shift = fixed_next_shift(&state.scale);
}

void fixed_conv2d_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                          int16_t *filter, uint16_t slope, uint8_t *shift, const struct engine_window *s)
{
    conv2d_forward(out, in, weights, filter, slope, shift, s, false);
}

void fixed_conv2d_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                 const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                 uint8_t *shift, const struct engine_window *s)
{
    conv2d_forward_sample(out, in, weights, filter, line, slope, shift, s, false);
}

#if defined(__AVR__)
void fixed_conv2d_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                 const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                                 const struct engine_window *s)
{
    conv2d_forward(out, in, weights, filter, slope, shift, s, true);
}

void fixed_conv2d_forward_sample_frozen(struct fixed_values *out, const struct fixed_input *in,
                                        const struct fixed_weights *weights, int16_t *filter, int8_t *line,
                                        uint16_t slope, uint8_t *shift, const struct engine_window *s)
{
    conv2d_forward_sample(out, in, weights, filter, line, slope, shift, s, true);
}
#endif
