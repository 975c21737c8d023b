/* Which kernel taps fall inside the image, and which outputs an input fed. Private to firmware/engine. */
#ifndef ENGINE_WINDOW_H
#define ENGINE_WINDOW_H

#include "inner.h"

/* Whether convolutions have the loops of conv2d_sse.h. */
#ifndef ENGINE_SSE
#if defined(__SSE2__) && ENGINE_BLOCK > 0
#define ENGINE_SSE 1
#else
#define ENGINE_SSE 0
#endif
#endif

/* From `first`, `count` long; along one axis. */
struct engine_span {
    uint16_t first, count;
};

/* Kernel taps of output `out` that fall inside the input. */
static ENGINE_INLINE struct engine_span engine_taps(uint16_t out, uint8_t stride, uint8_t pad, uint8_t kernel,
                                                    uint16_t in_size)
{
    const int32_t start = (int32_t)out * stride - pad; /* where tap 0 falls */
    const int32_t first = start < 0 ? -start : 0;
    const int32_t end = start + kernel > (int32_t)in_size ? (int32_t)in_size - start : kernel;
    return (struct engine_span){ (uint16_t)first, (uint16_t)(end > first ? end - first : 0) };
}

/* x / stride; where a division takes as long as the sums of a pixel, the usual strides do without. */
static ENGINE_INLINE engine_offset engine_strides(engine_offset x, uint8_t stride)
{
#if ENGINE_SSE
    return stride == 1 ? x : stride == 2 ? x / 2 : x / stride;
#else
    return x / stride;
#endif
}

/* Outputs whose window holds input `in`. */
static ENGINE_INLINE struct engine_span engine_fed(uint16_t in, uint8_t stride, uint8_t pad, uint8_t kernel,
                                                   uint16_t out_size)
{
    const engine_offset last_tap = (engine_offset)in + pad; /* of output 0, could its kernel reach so far */
    const engine_offset first = last_tap < kernel ? 0 : engine_strides(last_tap - kernel, stride) + 1;
    const engine_offset reached = engine_strides(last_tap, stride) + 1;
    const engine_offset end = reached < out_size ? reached : out_size;
    return (struct engine_span){ (uint16_t)first, (uint16_t)(end > first ? end - first : 0) };
}

static ENGINE_INLINE struct engine_span engine_tap_rows(const struct engine_window *s, uint16_t out_y)
{
    return engine_taps(out_y, s->stride_height, s->pad_top, s->kernel_height, s->in_height);
}

static ENGINE_INLINE struct engine_span engine_tap_columns(const struct engine_window *s, uint16_t out_x)
{
    return engine_taps(out_x, s->stride_width, s->pad_left, s->kernel_width, s->in_width);
}

static ENGINE_INLINE struct engine_span engine_fed_rows(const struct engine_window *s, uint16_t in_y)
{
    return engine_fed(in_y, s->stride_height, s->pad_top, s->kernel_height, s->out_height);
}

static ENGINE_INLINE struct engine_span engine_fed_columns(const struct engine_window *s, uint16_t in_x)
{
    return engine_fed(in_x, s->stride_width, s->pad_left, s->kernel_width, s->out_width);
}

/* Input element of channel 0 under tap (tap_y, tap_x) of output (out_y, out_x). */
static ENGINE_INLINE engine_offset engine_in_offset(const struct engine_window *s, uint16_t out_y, uint16_t out_x,
                                               uint16_t tap_y, uint16_t tap_x)
{
    const engine_offset y = (engine_offset)out_y * s->stride_height + tap_y - s->pad_top;
    const engine_offset x = (engine_offset)out_x * s->stride_width + tap_x - s->pad_left;
    return (y * s->in_width + x) * s->in_channels;
}

/* Kernel tap by which input (in_y, in_x) fed output (out_y, out_x), counted row-major. */
static ENGINE_INLINE uint16_t engine_tap(const struct engine_window *s, uint16_t in_y, uint16_t in_x, uint16_t out_y,
                                         uint16_t out_x)
{
    const engine_offset y = (engine_offset)in_y + s->pad_top - (engine_offset)out_y * s->stride_height;
    const engine_offset x = (engine_offset)in_x + s->pad_left - (engine_offset)out_x * s->stride_width;
    return (uint16_t)(y * s->kernel_width + x);
}

#endif
