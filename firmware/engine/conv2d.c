/* Two-dimensional convolution; in one dimension the height is 1. */
#include "conv2d.h"
#include "conv2d_sse.h"

static ENGINE_INLINE void conv2d_forward(float *out, struct engine_source in, const float *weight, const float *bias,
                                         const struct engine_window *shape)
{
#if ENGINE_SSE
    if (shape->out_channels < SSE_BELOW) {
        sse_forward(out, in, weight, bias, shape);
        return;
    }
#endif
    for (uint16_t y = 0; y < shape->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(shape, y);
        for (uint16_t x = 0; x < shape->out_width; x++) {
            const struct engine_patch patch = conv2d_patch(shape, rows, y, x);
            engine_patch_forward(out, shape->out_channels, in, weight, bias, &patch);
            out += shape->out_channels;
        }
    }
}

void engine_conv2d_forward(float *out, const float *in, const float *weight, const float *bias,
                           const struct engine_window *shape)
{
    conv2d_forward(out, engine_values(in), weight, bias, shape);
}

void engine_conv2d_forward_sample(float *out, const struct engine_sample *in, const float *weight, const float *bias,
                                  const struct engine_window *shape)
{
    conv2d_forward(out, engine_bytes(in), weight, bias, shape);
}

#if defined(__AVR__)
void engine_conv2d_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                  const struct engine_window *shape)
{
    conv2d_forward(out, engine_frozen(engine_values(in)), weight, bias, shape);
}

void engine_conv2d_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                         const float *bias, const struct engine_window *shape)
{
    conv2d_forward(out, engine_frozen(engine_bytes(in)), weight, bias, shape);
}
#endif

static ENGINE_INLINE void conv2d_bias(float *bias_gradient, const float *out_gradient, float scale,
                                      const struct engine_window *shape)
{
    const engine_offset pixels = (engine_offset)shape->out_height * shape->out_width;
#if ENGINE_SSE
    sse_bias(bias_gradient, out_gradient, scale, pixels, shape->out_channels);
#else
    engine_bias_gradient(bias_gradient, out_gradient, scale, pixels, shape->out_channels);
#endif
}

static ENGINE_INLINE void conv2d_weights(struct engine_source in, float *weight_gradient, float *bias_gradient,
                                         const float *out_gradient, float scale, const struct engine_window *shape)
{
    conv2d_bias(bias_gradient, out_gradient, scale, shape);
#if ENGINE_SSE
    if (shape->out_channels < SSE_BELOW) {
        sse_weights(in, weight_gradient, out_gradient, scale, shape);
        return;
    }
#endif
    for (uint16_t y = 0; y < shape->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(shape, y);
        for (uint16_t x = 0; x < shape->out_width; x++) {
            const struct engine_patch patch = conv2d_patch(shape, rows, y, x);
            engine_patch_outer(weight_gradient, shape->out_channels, in, out_gradient, scale, &patch);
            out_gradient += shape->out_channels;
        }
    }
}

void engine_conv2d_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                    const float *out_gradient, float scale, const struct engine_window *shape)
{
    conv2d_weights(engine_values(in), weight_gradient, bias_gradient, out_gradient, scale, shape);
}

void engine_conv2d_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                   const float *out_gradient, float scale, const struct engine_window *shape)
{
    conv2d_weights(engine_bytes(in), weight_gradient, bias_gradient, out_gradient, scale, shape);
}

/* A dead ReLU: nothing flows through it. */
static ENGINE_INLINE bool conv2d_is_dead(float v, float slope)
{
    return engine_is_zero(v) && engine_is_zero(slope);
}

#if ENGINE_TILE > 0
/* Eight output gradients, in registers while the inputs of a pixel pass by: adds to the lanes of each input, and what it
 * owes to the weight gradient. */
static ENGINE_INLINE void conv2d_eight(struct engine_lanes *lanes, const float *in, uint16_t channels, float slope,
                                       const float *weight, float *weight_gradient, const float *out_gradient,
                                       float scale, uint16_t weight_out)
{
    float d[8];
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 8; i++) {
        d[i] = out_gradient[i];
    }
    const ptrdiff_t gradient_out = weight_gradient == NULL ? 0 : weight_out;
    for (const float *const end = in + channels; in != end; in++, lanes++) {
        const float v = *in;
        if (!conv2d_is_dead(v, slope)) {
            engine_dot_eight(lanes, weight, d);
            if (weight_gradient != NULL && v != 0.0f) {
                engine_axpy_block(weight_gradient, scale * v, d, 8);
            }
        }
        weight += weight_out;
        weight_gradient += gradient_out;
    }
}

/* The same for the fewer than eight outputs that are left. */
static ENGINE_INLINE void conv2d_rest(struct engine_lanes *lanes, const float *in, uint16_t channels, float slope,
                                      const float *weight, float *weight_gradient, const float *d, uint16_t count,
                                      float scale, uint16_t weight_out)
{
    const ptrdiff_t gradient_out = weight_gradient == NULL ? 0 : weight_out;
    for (const float *const end = in + channels; in != end; in++, lanes++) {
        const float v = *in;
        if (weight_gradient != NULL && v != 0.0f) {
            engine_dot_axpy(lanes, weight, weight_gradient, scale * v, d, count);
        } else if (!conv2d_is_dead(v, slope)) {
            engine_dot(lanes, weight, d, count);
        }
        weight += weight_out;
        weight_gradient += gradient_out;
    }
}

/* Turns up to ENGINE_TILE inputs of a pixel into their gradients; adds what they owe to the weight gradient. */
static ENGINE_INLINE void conv2d_tile(float *in_out, uint16_t channels, float slope, const struct fan *fan,
                                      const float *weight, float *weight_gradient, const float *out_gradient,
                                      float scale, const struct engine_window *shape)
{
    const uint16_t out_channels = shape->out_channels, weight_out = shape->weight_out;
    struct engine_lanes lanes[ENGINE_TILE];
    for (uint16_t channel = 0; channel < channels; channel++) {
        engine_store_four(lanes[channel].at, (const float[4]){ 0.0f, 0.0f, 0.0f, 0.0f });
    }
    engine_offset row_weight = fan->weight;
    out_gradient += fan->out;
    for (uint16_t row = 0; row < fan->rows; row++) {
        engine_offset at = row_weight;
        const float *d = out_gradient;
        for (uint16_t column = 0; column < fan->columns; column++) {
            const float *w = weight + at;
            float *g = weight_gradient == NULL ? NULL : weight_gradient + at;
            uint16_t left = out_channels;
            for (; left >= 8; left = (uint16_t)(left - 8), d += 8, w += 8, g += g == NULL ? 0 : 8) {
                conv2d_eight(lanes, in_out, channels, slope, w, g, d, scale, weight_out);
            }
            if (left > 0) {
                conv2d_rest(lanes, in_out, channels, slope, w, g, d, left, scale, weight_out);
            }
            at -= fan->weight_column;
            d += left;
        }
        row_weight -= fan->weight_row;
        out_gradient += fan->out_row;
    }
    for (uint16_t channel = 0; channel < channels; channel++) {
        const float v = in_out[channel];
        const float g = engine_lanes_sum(&lanes[channel]);
        in_out[channel] = conv2d_is_dead(v, slope) ? 0.0f : engine_derivative(g, v, slope);
    }
}

/* Turns the inputs of a pixel into their gradients; adds what they owe to the weight gradient. Returns the next pixel. */
static ENGINE_INLINE float *conv2d_pixel(float *in_out, float slope, struct fan *fan, const float *weight,
                                         float *weight_gradient, const float *out_gradient, float scale,
                                         const struct engine_window *shape)
{
    for (uint16_t left = shape->in_channels; left > 0;) {
        const uint16_t channels = left < ENGINE_TILE ? left : ENGINE_TILE;
        conv2d_tile(in_out, channels, slope, fan, weight, weight_gradient, out_gradient, scale, shape);
        fan->weight += (engine_offset)channels * shape->weight_out;
        in_out += channels;
        left = (uint16_t)(left - channels);
    }
    return in_out;
}
#else
/* Gradient with respect to one input element of value v; adds what it owes to the weight gradient. */
static ENGINE_INLINE float conv2d_input(float v, const struct fan *fan, const float *weight, float *weight_gradient,
                                        const float *out_gradient, float scale, uint16_t out_channels)
{
    struct engine_lanes lanes = { { 0.0f, 0.0f, 0.0f, 0.0f } };
    const bool frozen = weight_gradient == NULL || engine_is_zero(v);
    const float a = scale * v;
    engine_offset row_weight = fan->weight;
    out_gradient += fan->out;
    for (uint16_t row = 0; row < fan->rows; row++) {
        engine_offset w = row_weight;
        const float *d = out_gradient;
        for (uint16_t column = 0; column < fan->columns; column++) {
            if (frozen) {
                engine_dot(&lanes, weight + w, d, out_channels);
            } else {
                engine_dot_axpy(&lanes, weight + w, weight_gradient + w, a, d, out_channels);
            }
            w -= fan->weight_column;
            d += out_channels;
        }
        row_weight -= fan->weight_row;
        out_gradient += fan->out_row;
    }
    return engine_lanes_sum(&lanes);
}

/* Turns the inputs of a pixel into their gradients; adds what they owe to the weight gradient. Returns the next pixel. */
static ENGINE_INLINE float *conv2d_pixel(float *in_out, float slope, struct fan *fan, const float *weight,
                                         float *weight_gradient, const float *out_gradient, float scale,
                                         const struct engine_window *shape)
{
    for (uint16_t channel = 0; channel < shape->in_channels; channel++, in_out++) {
#if ENGINE_SSE
        const uint16_t done = sse_backward(in_out, (uint16_t)(shape->in_channels - channel), slope, fan, weight,
                                           weight_gradient, out_gradient, scale, shape);
        if (done > 0) {
            channel = (uint16_t)(channel + done - 1);
            in_out += done - 1;
            fan->weight += (engine_offset)done * shape->weight_out;
            continue;
        }
#endif
        const float v = *in_out;
        if (conv2d_is_dead(v, slope)) {
            *in_out = 0.0f;
        } else {
            const float g = conv2d_input(v, fan, weight, weight_gradient, out_gradient, scale, shape->out_channels);
            *in_out = engine_derivative(g, v, slope);
        }
        fan->weight += shape->weight_out;
    }
    return in_out;
}
#endif

void engine_conv2d_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                            float *bias_gradient, const float *out_gradient, float scale,
                            const struct engine_window *shape)
{
    conv2d_bias(bias_gradient, out_gradient, scale, shape);
    for (uint16_t y = 0; y < shape->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(shape, y);
        for (uint16_t x = 0; x < shape->in_width; x++) {
            struct fan fan = conv2d_fan(shape, rows, y, x);
            in_out = conv2d_pixel(in_out, slope, &fan, weight, weight_gradient, out_gradient, scale, shape);
        }
    }
}
