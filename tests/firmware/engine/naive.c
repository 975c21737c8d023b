/* The kernels as a textbook has them, one element after the other, in the order of sums that firmware/engine/inner.h
 * gives: the oracle that the fast ones must equal bit for bit. Signatures as in engine.h. */
#include "engine.h"

#include <stddef.h>

#define DECLARE(kind, shape_type)                                                                                      \
    void naive_##kind##_forward(float *, const float *, const float *, const float *, const struct shape_type *);      \
    void naive_##kind##_backward_weights(const float *, float *, float *, const float *, float,                        \
                                         const struct shape_type *);                                                   \
    void naive_##kind##_backward(float *, float, const float *, float *, float *, const float *, float,                \
                                 const struct shape_type *);
DECLARE(dense, engine_dense)
DECLARE(conv2d, engine_window)
DECLARE(depthwise, engine_window)
void naive_max_pool_forward(float *, uint8_t *, const float *, const struct engine_window *);
void naive_max_pool_backward(float *, float, const uint8_t *, const float *, const struct engine_window *);
void naive_average_pool_forward(float *, const float *, const struct engine_window *);
void naive_average_pool_backward(float *, float, const float *, const struct engine_window *);

static float derivative(float gradient, float value, float slope)
{
    return value > 0.0f ? gradient : slope * gradient;
}

/// Geometry ///

/* Whether tap (ky, kx) of output (y, x) falls on the image; `at` becomes the input pixel there. */
static bool on_image(const struct engine_window *s, uint32_t y, uint32_t x, uint32_t ky, uint32_t kx, uint32_t *at)
{
    const int64_t iy = (int64_t)y * s->stride_height + ky - s->pad_top;
    const int64_t ix = (int64_t)x * s->stride_width + kx - s->pad_left;
    *at = (uint32_t)(iy * s->in_width + ix);
    return iy >= 0 && iy < s->in_height && ix >= 0 && ix < s->in_width;
}

#define EACH(i, count) for (uint32_t i = 0; i < (count); i++)
#define EACH_OUTPUT(s) EACH(y, (s)->out_height) EACH(x, (s)->out_width)
#define EACH_TAP(s) EACH(ky, (s)->kernel_height) EACH(kx, (s)->kernel_width)
#define OUTPUT(s) (y * (s)->out_width + x)
#define TAP(s) (ky * (s)->kernel_width + kx)

/* Taps in row-major order from the last back are outputs in row-major order from the first on, seen from an input. */
#define EACH_FED(s, pixel, at)                                                                                         \
    EACH_OUTPUT(s) EACH_TAP(s) if (on_image(s, y, x, ky, kx, &(at)) && (at) == (pixel))

static void bias_gradient_of(float *bias_gradient, const float *d, float scale, uint32_t pixels, uint32_t channels)
{
    EACH(pixel, pixels) EACH(o, bias_gradient == NULL ? 0 : channels) {
        bias_gradient[o] += scale * d[pixel * channels + o];
    }
}

/// Dense and convolution ///

static uint32_t dense_weight(const struct engine_dense *s, uint32_t group, uint32_t i, uint32_t o)
{
    return (group * s->weight_in + i) * s->weight_out + o;
}

void naive_dense_forward(float *out, const float *in, const float *weight, const float *bias,
                         const struct engine_dense *s)
{
    EACH(o, s->out) {
        out[o] = bias == NULL ? 0.0f : bias[o];
        EACH(group, s->groups) EACH(i, s->in) {
            const float v = in[group * s->in + i];
            out[o] = v == 0.0f ? out[o] : out[o] + v * weight[dense_weight(s, group, i, o)];
        }
    }
}

void naive_dense_backward_weights(const float *in, float *weight_gradient, float *bias_gradient, const float *d,
                                  float scale, const struct engine_dense *s)
{
    bias_gradient_of(bias_gradient, d, scale, 1, s->out);
    EACH(group, s->groups) EACH(i, s->in) EACH(o, weight_gradient == NULL ? 0 : s->out) {
        const float v = in[group * s->in + i];
        float *g = &weight_gradient[dense_weight(s, group, i, o)];
        *g = v == 0.0f ? *g : *g + (scale * v) * d[o];
    }
}

void naive_dense_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                          float *bias_gradient, const float *d, float scale, const struct engine_dense *s)
{
    EACH(group, s->groups) EACH(i, s->in) {
        float lanes[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
        float *v = &in_out[group * s->in + i];
        EACH(o, s->out) {
            lanes[o % 4] += weight[dense_weight(s, group, i, o)] * d[o];
        }
        EACH(o, weight_gradient == NULL ? 0 : s->out) { /* after the weight has been read: they may be the same */
            float *g = &weight_gradient[dense_weight(s, group, i, o)];
            *g = *v == 0.0f ? *g : *g + (scale * *v) * d[o];
        }
        const float sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        *v = *v == 0.0f && slope == 0.0f ? 0.0f : derivative(sum, *v, slope);
    }
    bias_gradient_of(bias_gradient, d, scale, 1, s->out);
}

static uint32_t conv2d_weight(const struct engine_window *s, uint32_t tap, uint32_t i, uint32_t o)
{
    return (tap * s->weight_in + i) * s->weight_out + o;
}

void naive_conv2d_forward(float *out, const float *in, const float *weight, const float *bias,
                          const struct engine_window *s)
{
    uint32_t at;
    EACH_OUTPUT(s) EACH(o, s->out_channels) {
        float sum = bias == NULL ? 0.0f : bias[o];
        EACH_TAP(s) EACH(i, on_image(s, y, x, ky, kx, &at) ? s->in_channels : 0) {
            const float v = in[at * s->in_channels + i];
            sum = v == 0.0f ? sum : sum + v * weight[conv2d_weight(s, TAP(s), i, o)];
        }
        out[OUTPUT(s) * s->out_channels + o] = sum;
    }
}

void naive_conv2d_backward_weights(const float *in, float *weight_gradient, float *bias_gradient, const float *d,
                                   float scale, const struct engine_window *s)
{
    uint32_t at;
    bias_gradient_of(bias_gradient, d, scale, (uint32_t)s->out_height * s->out_width, s->out_channels);
    EACH_TAP(s) EACH(i, s->in_channels) EACH(o, weight_gradient == NULL ? 0 : s->out_channels) {
        float *g = &weight_gradient[conv2d_weight(s, TAP(s), i, o)];
        EACH_OUTPUT(s) if (on_image(s, y, x, ky, kx, &at)) {
            const float v = in[at * s->in_channels + i];
            *g = v == 0.0f ? *g : *g + (scale * v) * d[OUTPUT(s) * s->out_channels + o];
        }
    }
}

void naive_conv2d_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                           float *bias_gradient, const float *d, float scale, const struct engine_window *s)
{
    uint32_t at;
    naive_conv2d_backward_weights(in_out, weight_gradient, bias_gradient, d, scale, s);
    EACH(pixel, (uint32_t)s->in_height * s->in_width) EACH(i, s->in_channels) {
        float lanes[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
        float *v = &in_out[pixel * s->in_channels + i];
        EACH_FED(s, pixel, at) EACH(o, s->out_channels) {
            lanes[o % 4] += weight[conv2d_weight(s, TAP(s), i, o)] * d[OUTPUT(s) * s->out_channels + o];
        }
        const float sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        *v = *v == 0.0f && slope == 0.0f ? 0.0f : derivative(sum, *v, slope);
    }
}

/// Depthwise: every input counts, a zero too ///

static uint32_t depthwise_weight(const struct engine_window *s, uint32_t tap, uint32_t o)
{
    return tap * s->weight_in * (s->out_channels / s->in_channels) + o;
}

void naive_depthwise_forward(float *out, const float *in, const float *weight, const float *bias,
                             const struct engine_window *s)
{
    uint32_t at;
    EACH_OUTPUT(s) EACH(o, s->out_channels) {
        const uint32_t i = o / (s->out_channels / s->in_channels);
        float sum = bias == NULL ? 0.0f : bias[o];
        EACH_TAP(s) if (on_image(s, y, x, ky, kx, &at)) {
            sum += in[at * s->in_channels + i] * weight[depthwise_weight(s, TAP(s), o)];
        }
        out[OUTPUT(s) * s->out_channels + o] = sum;
    }
}

void naive_depthwise_backward_weights(const float *in, float *weight_gradient, float *bias_gradient, const float *d,
                                      float scale, const struct engine_window *s)
{
    uint32_t at;
    bias_gradient_of(bias_gradient, d, scale, (uint32_t)s->out_height * s->out_width, s->out_channels);
    EACH_TAP(s) EACH(o, weight_gradient == NULL ? 0 : s->out_channels) {
        const uint32_t i = o / (s->out_channels / s->in_channels);
        EACH_OUTPUT(s) if (on_image(s, y, x, ky, kx, &at)) {
            weight_gradient[depthwise_weight(s, TAP(s), o)] +=
                (scale * in[at * s->in_channels + i]) * d[OUTPUT(s) * s->out_channels + o];
        }
    }
}

void naive_depthwise_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                              float *bias_gradient, const float *d, float scale, const struct engine_window *s)
{
    const uint32_t multiplier = s->out_channels / s->in_channels;
    uint32_t at;
    naive_depthwise_backward_weights(in_out, weight_gradient, bias_gradient, d, scale, s);
    EACH(pixel, (uint32_t)s->in_height * s->in_width) EACH(i, s->in_channels) {
        float *v = &in_out[pixel * s->in_channels + i], sum = 0.0f;
        EACH_FED(s, pixel, at) EACH(m, multiplier) {
            const uint32_t o = i * multiplier + m;
            sum += weight[depthwise_weight(s, TAP(s), o)] * d[OUTPUT(s) * s->out_channels + o];
        }
        *v = derivative(sum, *v, slope);
    }
}

/// Pooling ///

static uint32_t tap_bits(const struct engine_window *s)
{
    uint32_t bits = 0;
    for (uint32_t taps = (uint32_t)s->kernel_height * s->kernel_width; (1u << bits) < taps;) {
        bits++;
    }
    return bits;
}

void naive_max_pool_forward(float *out, uint8_t *argmax, const float *in, const struct engine_window *s)
{
    uint32_t at;
    EACH_OUTPUT(s) EACH(c, s->in_channels) {
        const uint32_t o = OUTPUT(s) * s->in_channels + c, bits = tap_bits(s);
        uint32_t best = UINT32_MAX;
        EACH_TAP(s) if (on_image(s, y, x, ky, kx, &at)) {
            if (best == UINT32_MAX || in[at * s->in_channels + c] > out[o]) {
                best = TAP(s);
                out[o] = in[at * s->in_channels + c];
            }
        }
        EACH(bit, bits) {
            const uint32_t place = o * bits + bit;
            const uint32_t kept = argmax[place / 8] & ~(1u << place % 8);
            argmax[place / 8] = (uint8_t)(kept | (best >> bit & 1) << place % 8);
        }
    }
}

void naive_max_pool_backward(float *in_out, float slope, const uint8_t *argmax, const float *d,
                             const struct engine_window *s)
{
    const uint32_t bits = tap_bits(s);
    uint32_t at;
    EACH(pixel, (uint32_t)s->in_height * s->in_width) EACH(c, s->in_channels) {
        float *v = &in_out[pixel * s->in_channels + c], sum = 0.0f;
        EACH_FED(s, pixel, at) {
            const uint32_t o = OUTPUT(s) * s->in_channels + c;
            uint32_t best = 0;
            EACH(bit, bits) {
                const uint32_t place = o * bits + bit;
                best |= (uint32_t)(argmax[place / 8] >> place % 8 & 1) << bit;
            }
            sum = best == TAP(s) ? sum + d[o] : sum;
        }
        *v = derivative(sum, *v, slope);
    }
}

static float share(const struct engine_window *s, uint32_t y, uint32_t x)
{
    uint32_t at, count = 0;
    EACH_TAP(s) {
        count += on_image(s, y, x, ky, kx, &at);
    }
    return 1.0f / (float)count;
}

void naive_average_pool_forward(float *out, const float *in, const struct engine_window *s)
{
    uint32_t at;
    EACH_OUTPUT(s) EACH(c, s->in_channels) {
        float sum = 0.0f;
        EACH_TAP(s) if (on_image(s, y, x, ky, kx, &at)) {
            sum += in[at * s->in_channels + c];
        }
        out[OUTPUT(s) * s->in_channels + c] = sum * share(s, y, x);
    }
}

void naive_average_pool_backward(float *in_out, float slope, const float *d, const struct engine_window *s)
{
    uint32_t at;
    EACH(pixel, (uint32_t)s->in_height * s->in_width) EACH(c, s->in_channels) {
        float *v = &in_out[pixel * s->in_channels + c], sum = 0.0f;
        EACH_FED(s, pixel, at) {
            sum += d[OUTPUT(s) * s->in_channels + c] * share(s, y, x);
        }
        *v = derivative(sum, *v, slope);
    }
}
