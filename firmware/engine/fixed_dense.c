/* Dense layers in fixed point. */
#include "fixed_inner.h"

/* How a layer sums: over its inputs and one output's weights, under which exponent, and with how many bits lost. */
struct dense_sums {
    struct fixed_walk walk;
    struct fixed_sums from;
};

static struct dense_sums dense_sums(const struct fixed_values *in, const struct fixed_weights *weights,
                                    const struct engine_dense *shape)
{
    struct dense_sums sums;
    const size_t used = (size_t)shape->in * shape->weight_out, stored = (size_t)shape->weight_in * shape->weight_out;
    sums.walk = (struct fixed_walk){ shape->in, shape->groups, 0, (ptrdiff_t)(stored - used), 1, shape->weight_out };
    sums.from = fixed_sums(in->exponent, weights, (uint32_t)shape->groups * shape->in);
    return sums;
}

#define PIECE 16 /* weights of a column that pass through the stack at a time; 256 is a multiple of it */

/* fixed_any_dot_pair of weights in flash, which it would not read there. */
static void dense_flash_dot(int32_t sum[2], const int8_t *x, const int16_t *w, const struct fixed_walk *walk,
                            uint8_t sums, uint8_t lost)
{
    struct fixed_walk piece = { .rows = 1, .w_stride = 2 };
    sum[0] = sum[1] = 0;
    for (uint16_t row = walk->rows; row > 0; row--, w += walk->w_skip) {
        int32_t run[2] = { 0, 0 };
        for (uint16_t done = 0; done < walk->count; x += piece.count) {
            int16_t pairs[2 * PIECE], *to = pairs;
            int32_t part[2];
            piece.count = walk->count - done < PIECE ? (uint16_t)(walk->count - done) : PIECE;
            done = (uint16_t)(done + piece.count);
            for (uint16_t i = piece.count; i > 0; i--, w += walk->w_stride) {
                *to++ = fixed_weight(w, true);
                *to++ = fixed_weight(w + (sums - 1), true);
            }
            fixed_dot_pair(part, x, pairs, &piece, sums);
            run[0] += part[0];
            run[1] += part[1];
            if (done % 256 == 0 || done == walk->count) {
                sum[0] += run[0] >> lost;
                sum[1] += run[1] >> lost;
                run[0] = run[1] = 0;
            }
        }
    }
}

/* The sums of outputs `out` and, if there is one, `out` + 1. Returns how many. */
static uint8_t dense_sum(int32_t sum[2], const int8_t *in, const struct fixed_weights *weights, uint16_t out,
                         const struct dense_sums *sums, const struct engine_dense *shape, bool in_flash)
{
    const uint8_t count = shape->out - out > 1 ? 2 : 1;
    if (in_flash) {
        dense_flash_dot(sum, in, weights->kernel + out, &sums->walk, count, sums->from.lost);
    } else {
        fixed_any_dot_pair(sum, in, weights->kernel + out, &sums->walk, count, sums->from.lost);
    }
    for (uint8_t i = 0; i < count; i++) {
        sum[i] += fixed_start(weights->bias, (uint16_t)(out + i), sums->from.bias_exponent, in_flash);
    }
    return count;
}

static void dense_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                          uint16_t slope, uint8_t *shift, const struct engine_dense *shape, bool in_flash)
{
    const struct dense_sums sums = dense_sums(in, weights, shape);
    struct fixed_scale scale = { *shift, 0 };
    int32_t sum[2];
    uint8_t count;
    for (uint16_t o = 0; o < shape->out; o = (uint16_t)(o + count)) {
        count = dense_sum(sum, in->at, weights, o, &sums, shape, in_flash);
        for (uint8_t i = 0; i < count; i++) {
            const int32_t activated = fixed_activated(sum[i], slope);
            int32_t value = fixed_nearest(activated, scale.shift);
            while (!fixed_fits(&scale, value)) {
                fixed_halve(out->at, 1, (uint32_t)o + i);
                value = fixed_nearest(activated, scale.shift);
            }
            out->at[o + i] = (int8_t)value;
        }
    }
    out->exponent = fixed_exponent((int16_t)(sums.from.exponent + scale.shift));
    *shift = fixed_next_shift(&scale);
}

void fixed_dense_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                         uint16_t slope, uint8_t *shift, const struct engine_dense *shape)
{
    dense_forward(out, in, weights, slope, shift, shape, false);
}

#if defined(__AVR__)
void fixed_dense_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                const struct fixed_weights *weights, uint16_t slope, uint8_t *shift,
                                const struct engine_dense *shape)
{
    dense_forward(out, in, weights, slope, shift, shape, true);
}
#endif

void fixed_dense_logits(int16_t *logits, const struct fixed_values *in, const struct fixed_weights *weights,
                        const struct engine_dense *shape)
{
    const struct dense_sums sums = dense_sums(in, weights, shape);
    int32_t sum[2];
    uint8_t count;
    for (uint16_t o = 0; o < shape->out; o = (uint16_t)(o + count)) {
        count = dense_sum(sum, in->at, weights, o, &sums, shape, false);
        for (uint8_t i = 0; i < count; i++) {
            logits[o + i] = fixed_rounded(sum[i], (int16_t)(sums.from.exponent + 8));
        }
    }
}

/* The steps of the biases; and, for the rows of weights, how far the output gradient moves a weight for each unit of
 * input, in 1/256 of a weight's last place. */
static void dense_steps(int16_t *step, int16_t in_exponent, const struct fixed_weights *weights,
                        const struct fixed_values *out_gradient, uint16_t count)
{
    const int16_t exponent = (int16_t)(in_exponent + out_gradient->exponent - weights->kernel_exponent + 8);
    const int16_t bias_exponent = (int16_t)(out_gradient->exponent - weights->bias_exponent);
    const bool whole = exponent >= 0 && exponent < 8; /* most often it is so simple */
    const uint8_t factor = (uint8_t)(whole ? 1U << exponent : 0U);
    for (uint16_t o = 0; o < count; o++) {
        const int8_t down = (int8_t)-out_gradient->at[o];
        step[o] = whole ? (int16_t)(down * factor) : fixed_rounded(down, exponent);
        if (weights->bias != NULL) {
            fixed_add(fixed_trained(weights->bias) + o, fixed_rounded(down, bias_exponent));
        }
    }
}

void fixed_dense_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights, int16_t *step,
                                  const struct fixed_values *out_gradient, const struct engine_dense *shape)
{
    const size_t group_size = (size_t)shape->weight_in * shape->weight_out;
    const ptrdiff_t skip = (ptrdiff_t)(size_t)(shape->weight_out - shape->out);
    const int8_t *x = in->at;
    int16_t *w = fixed_trained(weights->kernel);
    dense_steps(step, in->exponent, weights, out_gradient, shape->out);
    for (uint16_t group = shape->groups; group > 0; group--, x += shape->in, w += group_size) {
        fixed_update_rows(w, x, step, shape->out, shape->in, skip);
    }
}

void fixed_dense_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                          int16_t *step, const struct fixed_values *out_gradient, uint8_t *shift,
                          const struct engine_dense *shape)
{
    const size_t group_size = (size_t)shape->weight_in * shape->weight_out;
    struct fixed_scale scale = { *shift, 0 };
    int8_t *x = in_out->at;
    const uint8_t lost = fixed_lost(shape->out);
    if (!weights->frozen) {
        dense_steps(step, in_out->exponent, weights, out_gradient, shape->out);
    }
    for (uint16_t group = 0; group < shape->groups; group++) {
        int16_t *w = fixed_trained(weights->kernel) + group * group_size;
        for (uint16_t channel = 0; channel < shape->in; channel++, x++, w += shape->weight_out) {
            if (*x == 0 && slope == 0) { /* a dead ReLU: nothing flows through it */
                continue;
            }
            int32_t sum = fixed_any_dot(out_gradient->at, w, shape->out, lost);
            if (!weights->frozen) {
                fixed_update_rows(w, x, step, shape->out, 1, 0);
            }
            sum = *x > 0 ? sum : fixed_sloped(sum, slope);
            fixed_put(in_out->at, (uint32_t)(x - in_out->at), sum, &scale);
        }
    }
    in_out->exponent =
        fixed_exponent((int16_t)(out_gradient->exponent + weights->kernel_exponent + lost + scale.shift));
    *shift = fixed_next_shift(&scale);
}

void fixed_logits(int16_t *logits, const struct fixed_values *out, uint16_t classes)
{
    for (uint16_t c = 0; c < classes; c++) {
        logits[c] = fixed_rounded(out->at[c], (int16_t)(out->exponent + 8));
    }
}

void fixed_values_of(struct fixed_values *out, const struct fixed_input *in, uint16_t count)
{
    out->exponent = in->exponent;
    (void)fixed_read(out->at, in, 0, count);
}
