/* The engine's inner loops. Private to firmware/engine.
 *
 * Order of every sum, which is what makes all targets agree to the bit:
 * - forward: an output starts at its bias and adds input × weight by kernel row, kernel column, input channel;
 * - weight gradient: an element adds (scale × input) × output gradient by output pixel, row-major;
 * - input gradient: four lanes start at zero; output channel o of every output pixel, row-major, goes to lane o mod 4;
 *   at the end (lane 0 + lane 1) + (lane 2 + lane 3).
 * An input of exactly zero is skipped: it adds nothing to an output nor to a weight gradient.
 */
#ifndef ENGINE_INNER_H
#define ENGINE_INNER_H

#include "eight.h"
#include "source.h"

#if defined(__FAST_MATH__)
#error "the engine needs strict IEEE arithmetic: remove -ffast-math"
#endif
#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
#error "float expressions must be evaluated as float: add -msse2 -mfpmath=sse"
#endif

/* Outputs or their gradients held in registers at a time, the inputs passing by; 0: left in memory, which soft float
 * cannot notice, reading each input once. */
#ifndef ENGINE_BLOCK
#ifdef __AVR__
#define ENGINE_BLOCK 0
#else
#define ENGINE_BLOCK 16
#endif
#endif

/* Input channels that a convolution's way back takes side by side, so that eight output gradients stay in registers
 * meanwhile; 0: one after the other, which soft float cannot notice and x86 prefers, whose vector instructions take an
 * operand from memory as from a register (117 against 164 µs a sample of MNIST expanded). */
#ifndef ENGINE_TILE
#if ENGINE_BLOCK == 0 || defined(__riscv_float_abi_soft) || defined(__x86_64__) || defined(__i386__)
#define ENGINE_TILE 0
#else
#define ENGINE_TILE 8
#endif
#endif

/* What one output pixel sees of input and weights: rows × columns × channels, the part inside the image. */
struct engine_patch {
    engine_offset in;                        /* first input element */
    engine_offset in_row;                    /* elements from one input row to the next */
    engine_offset weight;                    /* first weight */
    engine_offset weight_row, weight_column; /* weights from one kernel row, column to the next */
    uint16_t rows, columns, channels;
    uint16_t weight_out; /* weights from one input channel to the next */
};

/* The same patch; columns whose weights lie one after the other, as their inputs do, made a single long one. */
static ENGINE_INLINE struct engine_patch engine_joined(struct engine_patch patch)
{
#if ENGINE_BLOCK > 0
    const uint32_t line = (uint32_t)patch.columns * patch.channels;
    if (patch.weight_column == (engine_offset)patch.channels * patch.weight_out && line <= UINT16_MAX) {
        patch.columns = 1;
        patch.channels = (uint16_t)line;
    }
#endif
    return patch;
}

/* sum += v × w for a constant count and sums held in registers; in memory as well, for any count, without blocks. */
static ENGINE_INLINE void engine_sum_block(float *sum, float v, const float *w, const uint16_t count)
{
#if ENGINE_FLOAT_AVR
    engine_avr_axpy(sum, w, count, v);
#else
    uint16_t done = 0;
#if ENGINE_BLOCK > 0
    ENGINE_UNROLL
    for (; (uint16_t)(count - done) >= 8; done = (uint16_t)(done + 8)) {
        float eight[8];
        engine_load_eight(eight, w + done);
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 8; i++) {
            sum[done + i] += v * eight[i];
        }
    }
#endif
    ENGINE_UNROLL
    for (; done < count; done++) {
        sum[done] += v * w[done];
    }
#endif
}

/* The same for weights in flash. */
static ENGINE_INLINE void engine_sum_flash(float *sum, float v, const float *w, uint16_t count)
{
    float some[8];
    for (uint16_t done = 0; done < count;) {
        uint8_t n = 0;
        for (; n < 8 && done + n < count; n++) {
            some[n] = engine_weight(&w[done + n], true);
        }
        engine_sum_block(sum + done, v, some, n);
        done = (uint16_t)(done + n);
    }
}

/* sum[0…count) += patch × weights. */
static ENGINE_INLINE void engine_patch_sum(float *sum, uint16_t count, struct engine_source from, const float *weight,
                                           const struct engine_patch *patch)
{
    const uint16_t rows = patch->rows, columns = patch->columns, channels = patch->channels;
    const uint16_t weight_out = patch->weight_out;
    for (uint16_t row = 0; row < rows; row++) {
        engine_offset in = patch->in + row * patch->in_row;
        const float *column_weight = weight + (patch->weight + row * patch->weight_row);
        for (uint16_t column = 0; column < columns; column++) {
            const float *w = column_weight;
            for (uint16_t channel = 0; channel < channels; channel++) {
                const float v = engine_read(from, in++);
                if (!engine_is_zero(v) && from.weights_in_flash) {
                    engine_sum_flash(sum, v, w, count);
                } else if (!engine_is_zero(v)) {
                    engine_sum_block(sum, v, w, count);
                }
                w += weight_out;
            }
            column_weight += patch->weight_column;
        }
    }
}

static ENGINE_INLINE void engine_start(float *out, const float *bias, bool in_flash, uint16_t count)
{
    ENGINE_UNROLL
    for (uint16_t i = 0; i < count; i++) {
        out[i] = bias == NULL ? 0.0f : engine_weight(&bias[i], in_flash);
    }
}

#if ENGINE_BLOCK > 0
static ENGINE_INLINE uint16_t engine_patch_block(float *out, uint16_t done, const uint16_t block, uint16_t count,
                                                 struct engine_source from, const float *weight, const float *bias,
                                                 const struct engine_patch *patch)
{
    for (; (uint16_t)(count - done) >= block; done = (uint16_t)(done + block)) {
        float sum[ENGINE_BLOCK];
        engine_start(sum, bias == NULL ? NULL : bias + done, from.weights_in_flash, block);
        engine_patch_sum(sum, block, from, weight + done, patch);
        ENGINE_UNROLL
        for (uint16_t i = 0; i < block; i++) {
            out[done + i] = sum[i];
        }
    }
    return done;
}
#endif

/* out[0…count) = bias + patch × weights: one output pixel. */
static ENGINE_INLINE void engine_patch_forward(float *out, uint16_t count, struct engine_source from,
                                               const float *weight, const float *bias,
                                               const struct engine_patch *patch)
{
#if ENGINE_BLOCK > 0
    uint16_t done = 0;
    done = engine_patch_block(out, done, ENGINE_BLOCK, count, from, weight, bias, patch);
    done = engine_patch_block(out, done, 8, count, from, weight, bias, patch);
    done = engine_patch_block(out, done, 4, count, from, weight, bias, patch);
    done = engine_patch_block(out, done, 2, count, from, weight, bias, patch);
    (void)engine_patch_block(out, done, 1, count, from, weight, bias, patch);
#else
    engine_start(out, bias, from.weights_in_flash, count);
    engine_patch_sum(out, count, from, weight, patch);
#endif
}

/* y += a × x. x and y do not overlap, but neither is said to be `restrict`: reading four before writing four is enough. */
static ENGINE_INLINE void engine_axpy(float *y, float a, const float *x, uint16_t count)
{
#if ENGINE_FLOAT_AVR
    engine_avr_axpy(y, x, count, a);
#else
    for (; count >= 4; count = (uint16_t)(count - 4)) {
        float sum[4];
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            sum[i] = y[i] + a * x[i];
        }
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            y[i] = sum[i];
        }
        x += 4;
        y += 4;
    }
    for (uint16_t i = 0; i < count; i++) {
        y[i] += a * x[i];
    }
#endif
}

/* y += a × x for a constant count and an x held in registers; without blocks, as engine_axpy. */
static ENGINE_INLINE void engine_axpy_block(float *y, float a, const float *x, const uint16_t count)
{
#if ENGINE_BLOCK > 0
    uint16_t done = 0;
    ENGINE_UNROLL
    for (; (uint16_t)(count - done) >= 8; done = (uint16_t)(done + 8)) {
        float eight[8];
        engine_load_eight(eight, y + done);
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 8; i++) {
            eight[i] += a * x[done + i];
        }
        engine_store_eight(y + done, eight);
    }
    ENGINE_UNROLL
    for (; done < count; done++) {
        y[done] += a * x[done];
    }
#else
    engine_axpy(y, a, x, count);
#endif
}

/* gradient += scale × patch ⊗ d[0…count). */
static ENGINE_INLINE void engine_patch_add(float *gradient, const uint16_t count, struct engine_source from,
                                           const float *d, float scale, const struct engine_patch *patch)
{
    const uint16_t rows = patch->rows, columns = patch->columns, channels = patch->channels;
    const uint16_t weight_out = patch->weight_out;
    for (uint16_t row = 0; row < rows; row++) {
        engine_offset in = patch->in + row * patch->in_row;
        float *column_gradient = gradient + (patch->weight + row * patch->weight_row);
        for (uint16_t column = 0; column < columns; column++) {
            float *g = column_gradient;
            for (uint16_t channel = 0; channel < channels; channel++) {
                const float v = engine_read(from, in++);
                if (!engine_is_zero(v)) {
                    engine_axpy_block(g, scale * v, d, count);
                }
                g += weight_out;
            }
            column_gradient += patch->weight_column;
        }
    }
}

#if ENGINE_BLOCK > 0
static ENGINE_INLINE uint16_t engine_outer_block(float *gradient, uint16_t done, const uint16_t block, uint16_t count,
                                                 struct engine_source from, const float *out_gradient, float scale,
                                                 const struct engine_patch *patch)
{
    for (; (uint16_t)(count - done) >= block; done = (uint16_t)(done + block)) {
        float d[ENGINE_BLOCK];
        ENGINE_UNROLL
        for (uint16_t i = 0; i < block; i++) {
            d[i] = out_gradient[done + i];
        }
        engine_patch_add(gradient + done, block, from, d, scale, patch);
    }
    return done;
}
#endif

/* gradient += scale × patch ⊗ out_gradient: what one output pixel adds to the weight gradient. */
static ENGINE_INLINE void engine_patch_outer(float *gradient, uint16_t count, struct engine_source from,
                                             const float *out_gradient, float scale,
                                             const struct engine_patch *patch)
{
#if ENGINE_BLOCK > 0
    uint16_t done = 0;
    done = engine_outer_block(gradient, done, ENGINE_BLOCK, count, from, out_gradient, scale, patch);
    done = engine_outer_block(gradient, done, 8, count, from, out_gradient, scale, patch);
    done = engine_outer_block(gradient, done, 4, count, from, out_gradient, scale, patch);
    done = engine_outer_block(gradient, done, 2, count, from, out_gradient, scale, patch);
    (void)engine_outer_block(gradient, done, 1, count, from, out_gradient, scale, patch);
#else
    engine_patch_add(gradient, count, from, out_gradient, scale, patch);
#endif
}

/* gradient += scale × the sum of out_gradient over pixels, one pixel after the other. gradient may be NULL. */
static ENGINE_INLINE void engine_bias_gradient(float *gradient, const float *out_gradient, float scale,
                                               engine_offset pixels, uint16_t channels)
{
    for (; gradient != NULL && pixels > 0; pixels--) {
        engine_axpy(gradient, scale, out_gradient, channels);
        out_gradient += channels;
    }
}

struct engine_lanes {
    float at[4];
};

/* lanes += weight · d. */
static ENGINE_INLINE void engine_dot(struct engine_lanes *lanes, const float *weight, const float *d, uint16_t count)
{
#if ENGINE_FLOAT_AVR
    engine_avr_dot(lanes->at, d, count, weight);
#else
    for (; count >= 4; count = (uint16_t)(count - 4)) {
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            lanes->at[i] += weight[i] * d[i];
        }
        weight += 4;
        d += 4;
    }
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 3; i++) {
        if (i < count) {
            lanes->at[i] += weight[i] * d[i];
        }
    }
#endif
}

/* lanes += weight · d for eight d in registers. */
static ENGINE_INLINE void engine_dot_eight(struct engine_lanes *lanes, const float *weight, const float *d)
{
    float sum[4], w[8];
    engine_load_four(sum, lanes->at);
    engine_load_eight(w, weight);
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 8; i++) {
        sum[i & 3] += w[i] * d[i];
    }
    engine_store_four(lanes->at, sum);
}

/* lanes += weight · d and gradient += a × d in one pass. gradient may be weight itself: read first, written after. */
static ENGINE_INLINE void engine_dot_axpy(struct engine_lanes *lanes, const float *weight, float *gradient, float a,
                                          const float *d, uint16_t count)
{
#if ENGINE_FLOAT_AVR
    engine_dot(lanes, weight, d, count);
    engine_axpy(gradient, a, d, count);
#else
    for (; count >= 4; count = (uint16_t)(count - 4)) {
        float sum[4];
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            lanes->at[i] += weight[i] * d[i];
            sum[i] = gradient[i] + a * d[i];
        }
        ENGINE_UNROLL
        for (uint8_t i = 0; i < 4; i++) {
            gradient[i] = sum[i];
        }
        weight += 4;
        gradient += 4;
        d += 4;
    }
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 3; i++) {
        if (i < count) {
            lanes->at[i] += weight[i] * d[i];
            gradient[i] += a * d[i];
        }
    }
#endif
}

static ENGINE_INLINE float engine_lanes_sum(const struct engine_lanes *lanes)
{
    return (lanes->at[0] + lanes->at[1]) + (lanes->at[2] + lanes->at[3]);
}

/* Times the derivative of the activation that made `value`. */
static ENGINE_INLINE float engine_derivative(float gradient, float value, float slope)
{
    return engine_is_positive(value) ? gradient : slope * gradient;
}

#endif
