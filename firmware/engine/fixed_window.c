/* What convolutions in fixed point share, depthwise or not. */
#include "fixed_window.h"

bool fixed_line(int8_t *line, const struct fixed_input *in, struct engine_span rows, uint16_t y,
                const struct engine_window *s)
{
    const size_t in_row = (size_t)s->in_width * s->in_channels;
    const uint16_t in_y = (uint16_t)(y * s->stride_height + rows.first - s->pad_top);
    return fixed_read(line, in, in_y * in_row, rows.count * in_row) != 0;
}

void fixed_bias_step(const struct fixed_weights *weights, const struct fixed_values *out_gradient,
                     const struct engine_window *s)
{
    const int16_t exponent = (int16_t)(out_gradient->exponent - weights->bias_exponent);
    for (uint16_t channel = 0; weights->bias != NULL && channel < s->out_channels; channel++) {
        const int8_t *d = out_gradient->at + channel;
        int32_t sum = 0;
        for (uint16_t row = s->out_height; row > 0; row--) {
            for (uint16_t column = s->out_width; column > 0; column--, d += s->out_channels) {
                sum += *d;
            }
        }
        fixed_add(fixed_trained(weights->bias) + channel, fixed_rounded(-sum, exponent));
    }
}

struct engine_span fixed_seen(uint8_t tap, uint8_t stride, uint8_t pad, uint16_t in_size, uint16_t out_size)
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
