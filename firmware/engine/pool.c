/* Pooling, channel by channel. Padding is never a maximum and never counts in an average, as in Keras. */
#include "bits.h"
#include "window.h"

static ENGINE_INLINE uint8_t tap_bits(const struct engine_window *s)
{
    return engine_packed_bits((uint16_t)((uint16_t)s->kernel_height * s->kernel_width));
}

/* The first maximum in row-major order, as TensorFlow takes it; a NaN is larger than anything, so it is not lost. */
static float window_maximum(uint16_t *tap, const float *in, struct engine_span rows, struct engine_span columns,
                            const struct engine_window *s)
{
    const uint32_t in_row = (uint32_t)s->in_width * s->in_channels;
    float maximum = in[0];
    *tap = (uint16_t)(rows.first * s->kernel_width + columns.first);
    for (uint16_t row = 0; row < rows.count; row++, in += in_row) {
        const float *v = in;
        for (uint16_t column = 0; column < columns.count; column++, v += s->in_channels) {
            if (maximum != maximum) {
                return maximum;
            }
            if (!(*v <= maximum)) {
                maximum = *v;
                *tap = (uint16_t)((rows.first + row) * s->kernel_width + columns.first + column);
            }
        }
    }
    return maximum;
}

void engine_max_pool_forward(float *out, uint8_t *argmax, const float *in, const struct engine_window *shape)
{
    const uint8_t bits = tap_bits(shape);
    uint32_t o = 0;
    for (uint16_t y = 0; y < shape->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(shape, y);
        for (uint16_t x = 0; x < shape->out_width; x++) {
            const struct engine_span columns = engine_tap_columns(shape, x);
            const float *first = in + engine_in_offset(shape, y, x, rows.first, columns.first);
            for (uint16_t channel = 0; channel < shape->in_channels; channel++, o++) {
                uint16_t tap;
                out[o] = window_maximum(&tap, first + channel, rows, columns, shape);
                engine_packed_write(argmax, bits, o, tap);
            }
        }
    }
}

void engine_max_pool_backward(float *in_out, float slope, const uint8_t *argmax, const float *out_gradient,
                              const struct engine_window *shape)
{
    const uint8_t bits = tap_bits(shape);
    for (uint16_t y = 0; y < shape->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(shape, y);
        for (uint16_t x = 0; x < shape->in_width; x++) {
            const struct engine_span columns = engine_fed_columns(shape, x);
            for (uint16_t channel = 0; channel < shape->in_channels; channel++, in_out++) {
                float sum = 0.0f; /* by output pixel, row-major */
                for (uint16_t row = 0; row < rows.count; row++) {
                    for (uint16_t column = 0; column < columns.count; column++) {
                        const uint16_t out_y = (uint16_t)(rows.first + row), out_x = (uint16_t)(columns.first + column);
                        const uint32_t o = ((uint32_t)out_y * shape->out_width + out_x) * shape->in_channels + channel;
                        if (engine_packed_read(argmax, bits, o) == engine_tap(shape, y, x, out_y, out_x)) {
                            sum += out_gradient[o];
                        }
                    }
                }
                *in_out = engine_derivative(sum, *in_out, slope);
            }
        }
    }
}

static ENGINE_INLINE float window_share(struct engine_span rows, struct engine_span columns)
{
    return 1.0f / (float)((uint32_t)rows.count * columns.count);
}

void engine_average_pool_forward(float *out, const float *in, const struct engine_window *shape)
{
    const uint32_t in_row = (uint32_t)shape->in_width * shape->in_channels;
    for (uint16_t y = 0; y < shape->out_height; y++) {
        const struct engine_span rows = engine_tap_rows(shape, y);
        for (uint16_t x = 0; x < shape->out_width; x++) {
            const struct engine_span columns = engine_tap_columns(shape, x);
            const float share = window_share(rows, columns);
            const float *first = in + engine_in_offset(shape, y, x, rows.first, columns.first);
            for (uint16_t channel = 0; channel < shape->in_channels; channel++) {
                float sum = 0.0f;
                for (uint16_t row = 0; row < rows.count; row++) {
                    const float *v = first + row * in_row + channel;
                    for (uint16_t column = 0; column < columns.count; column++, v += shape->in_channels) {
                        sum += *v;
                    }
                }
                *out++ = sum * share;
            }
        }
    }
}

void engine_average_pool_backward(float *in_out, float slope, const float *out_gradient,
                                  const struct engine_window *shape)
{
    for (uint16_t y = 0; y < shape->in_height; y++) {
        const struct engine_span rows = engine_fed_rows(shape, y);
        for (uint16_t x = 0; x < shape->in_width; x++) {
            const struct engine_span columns = engine_fed_columns(shape, x);
            for (uint16_t channel = 0; channel < shape->in_channels; channel++, in_out++) {
                float sum = 0.0f; /* by output pixel, row-major */
                for (uint16_t row = 0; row < rows.count; row++) {
                    const uint16_t out_y = (uint16_t)(rows.first + row);
                    const struct engine_span tap_rows = engine_tap_rows(shape, out_y);
                    for (uint16_t column = 0; column < columns.count; column++) {
                        const uint16_t out_x = (uint16_t)(columns.first + column);
                        const uint32_t o = ((uint32_t)out_y * shape->out_width + out_x) * shape->in_channels + channel;
                        sum += out_gradient[o] * window_share(tap_rows, engine_tap_columns(shape, out_x));
                    }
                }
                *in_out = engine_derivative(sum, *in_out, slope);
            }
        }
    }
}
