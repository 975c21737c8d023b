/* Depthwise convolution: input channel c makes output channels c × multiplier … + multiplier − 1. The multiplier is
 * out_channels / in_channels, at every width; the weights of one tap are weight_in × multiplier. */
#include "window.h"

struct depthwise_taps {
    struct engine_span rows, columns;
    engine_offset in, in_row;         /* input element under the first tap; elements to the next row */
    engine_offset weight, weight_row; /* the same in the weights */
    engine_offset tap;                /* weights of one tap */
};

static ENGINE_INLINE uint16_t depthwise_multiplier(const struct engine_window *s)
{
    return (uint16_t)(s->out_channels / s->in_channels);
}

static ENGINE_INLINE struct depthwise_taps depthwise_taps(const struct engine_window *s, uint16_t y, uint16_t x)
{
    const struct engine_span rows = engine_tap_rows(s, y), columns = engine_tap_columns(s, x);
    const engine_offset tap = (engine_offset)s->weight_in * depthwise_multiplier(s);
    return (struct depthwise_taps){
        .rows = rows,
        .columns = columns,
        .in = engine_in_offset(s, y, x, rows.first, columns.first),
        .in_row = (engine_offset)s->in_width * s->in_channels,
        .weight = ((engine_offset)rows.first * s->kernel_width + columns.first) * tap,
        .weight_row = s->kernel_width * tap,
        .tap = tap,
    };
}

static ENGINE_INLINE void depthwise_forward(float *out, struct engine_source from, const float *weight,
                                            const float *bias, const struct engine_window *shape)
{
    const uint16_t multiplier = depthwise_multiplier(shape), channels = shape->in_channels;
    for (uint16_t y = 0; y < shape->out_height; y++) {
        for (uint16_t x = 0; x < shape->out_width; x++, out += shape->out_channels) {
            const struct depthwise_taps taps = depthwise_taps(shape, y, x);
            engine_start(out, bias, from.weights_in_flash, shape->out_channels);
            for (uint16_t row = 0; row < taps.rows.count; row++) {
                engine_offset in = taps.in + row * taps.in_row;
                const float *tap = weight + (taps.weight + row * taps.weight_row);
                for (uint16_t column = 0; column < taps.columns.count; column++, tap += taps.tap) {
                    float *o = out;
                    const float *w = tap;
                    for (uint16_t channel = 0; channel < channels; channel++) {
                        const float v = engine_read(from, in++);
                        for (uint16_t i = 0; i < multiplier; i++) {
                            *o++ += v * engine_weight(w++, from.weights_in_flash);
                        }
                    }
                }
            }
        }
    }
}

void engine_depthwise_forward(float *out, const float *in, const float *weight, const float *bias,
                              const struct engine_window *shape)
{
    depthwise_forward(out, engine_values(in), weight, bias, shape);
}

void engine_depthwise_forward_sample(float *out, const struct engine_sample *in, const float *weight,
                                     const float *bias, const struct engine_window *shape)
{
    depthwise_forward(out, engine_bytes(in), weight, bias, shape);
}

#if defined(__AVR__)
void engine_depthwise_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                  const struct engine_window *shape)
{
    depthwise_forward(out, engine_frozen(engine_values(in)), weight, bias, shape);
}

void engine_depthwise_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                         const float *bias, const struct engine_window *shape)
{
    depthwise_forward(out, engine_frozen(engine_bytes(in)), weight, bias, shape);
}
#endif

static ENGINE_INLINE void depthwise_weights(struct engine_source from, float *weight_gradient, float *bias_gradient,
                                            const float *out_gradient, float scale,
                                            const struct engine_window *shape)
{
    const uint16_t multiplier = depthwise_multiplier(shape), channels = shape->in_channels;
    engine_bias_gradient(bias_gradient, out_gradient, scale, (engine_offset)shape->out_height * shape->out_width,
                         shape->out_channels);
    for (uint16_t y = 0; y < shape->out_height; y++) {
        for (uint16_t x = 0; x < shape->out_width; x++, out_gradient += shape->out_channels) {
            const struct depthwise_taps taps = depthwise_taps(shape, y, x);
            for (uint16_t row = 0; row < taps.rows.count; row++) {
                engine_offset in = taps.in + row * taps.in_row;
                float *tap = weight_gradient + (taps.weight + row * taps.weight_row);
                for (uint16_t column = 0; column < taps.columns.count; column++, tap += taps.tap) {
                    const float *d = out_gradient;
                    float *g = tap;
                    for (uint16_t channel = 0; channel < channels; channel++) {
                        const float a = scale * engine_read(from, in++);
                        for (uint16_t i = 0; i < multiplier; i++) {
                            *g++ += a * *d++;
                        }
                    }
                }
            }
        }
    }
}

void engine_depthwise_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                       const float *out_gradient, float scale, const struct engine_window *shape)
{
    depthwise_weights(engine_values(in), weight_gradient, bias_gradient, out_gradient, scale, shape);
}

void engine_depthwise_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                      const float *out_gradient, float scale, const struct engine_window *shape)
{
    depthwise_weights(engine_bytes(in), weight_gradient, bias_gradient, out_gradient, scale, shape);
}

void engine_depthwise_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                               float *bias_gradient, const float *out_gradient, float scale,
                               const struct engine_window *shape)
{
    const uint16_t multiplier = depthwise_multiplier(shape);
    const engine_offset tap = (engine_offset)shape->weight_in * multiplier;
    engine_bias_gradient(bias_gradient, out_gradient, scale, (engine_offset)shape->out_height * shape->out_width,
                         shape->out_channels);
    for (uint16_t y = 0; y < shape->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(shape, y);
        for (uint16_t x = 0; x < shape->in_width; x++) {
            const struct engine_span columns = engine_fed_columns(shape, x);
            for (uint16_t channel = 0; channel < shape->in_channels; channel++, in_out++) {
                const float v = *in_out, a = scale * v;
                const engine_offset first = (engine_offset)channel * multiplier;
                float sum = 0.0f; /* by output pixel, then by output channel */
                for (uint16_t row = 0; row < rows.count; row++) {
                    for (uint16_t column = 0; column < columns.count; column++) {
                        const uint16_t out_y = (uint16_t)(rows.first + row), out_x = (uint16_t)(columns.first + column);
                        const engine_offset w = engine_tap(shape, y, x, out_y, out_x) * tap + first;
                        const engine_offset pixel = (engine_offset)out_y * shape->out_width + out_x;
                        const float *d = out_gradient + (pixel * shape->out_channels + first);
                        for (uint16_t i = 0; i < multiplier; i++) {
                            sum += weight[w + i] * d[i];
                            if (weight_gradient != NULL) {
                                weight_gradient[w + i] += a * d[i];
                            }
                        }
                    }
                }
                *in_out = engine_derivative(sum, v, slope);
            }
        }
    }
}
