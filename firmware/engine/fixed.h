/* Integer-only training: one forward and one backward per layer, C99, nothing but <string.h>. docs/numerics.md has the
 * error bounds and the literature.
 *
 * Conventions (layouts and shapes are engine.h's)
 * - Activations and their gradients are 8-bit integers under one power of two a tensor: at[i] * 2^exponent, within
 *   ±127. A kernel shifts its 32-bit sums by what the tensor before this one needed; where a sum would not fit, the
 *   exponent grows and what is written already is halved. Nothing ever saturates there.
 * - Weights are 16-bit integers under a power of two that the host chooses for a tensor and a round.
 * - The step size is part of the gradient from the loss on, so that an update is a shift and no multiplication.
 * - Activations are rounded to nearest; gradients and updates stochastically (fixed_seed), which leaves them unbiased
 *   however small they are. A weight that would leave its 16 bits stays at their end and is counted (fixed_saturated).
 * - Every operation is exact on integers: the same bits on every target, in any compiler's order.
 */
#ifndef ENGINE_FIXED_H
#define ENGINE_FIXED_H

#include "engine.h"

/* A tensor in the arena: element i is worth at[i] * 2^exponent. Takes one byte more than it has elements. */
struct fixed_values {
    int8_t exponent;
    int8_t at[];
};

/* A layer's parameters, each tensor's elements times 2^exponent; bias may be NULL. Backward writes to them unless they
 * are frozen. */
struct fixed_weights {
    const int16_t *kernel, *bias;
    int8_t kernel_exponent, bias_exponent;
    bool frozen;
};

/* Sums in an arena that holds 16-bit integers at other times; see engine_index. */
#if defined(__GNUC__)
typedef int32_t __attribute__((may_alias)) fixed_sum;
#else
typedef int32_t fixed_sum;
#endif

/* An activation's slope for negative numbers, in 1/65536: 0 ReLU; FIXED_LINEAR: no activation. */
#define FIXED_LINEAR UINT16_MAX

/* A sample still in bytes: byte b is worth table[b] * 2^exponent. The table lies in flash (flash.h). */
struct fixed_input {
    const uint8_t *bytes;
    const int8_t *table; /* [256] */
    int8_t exponent;
};

#define FIXED_EXPONENT_LIMIT 40 /* magnitude that a weight tensor's exponent may have; more would be an error */
#define FIXED_LOGIT_ONE 256     /* logits are 16-bit: 1/256 */
#define FIXED_SHARE_ONE 32768U  /* soft targets are 16-bit: 1/32768 */

struct fixed_target {
    uint16_t label;            /* used if `soft` is NULL */
    const uint16_t *soft;      /* [classes] probabilities in 1/32768, or NULL */
    const int16_t *adjustment; /* [classes] added to the logits before the softmax, in 1/256, or NULL */
    uint16_t temperature;      /* of the softmax, in 1/256, at least 256; the loss counts its square times */
};

/* Start the generator that rounds; the same seed gives the same bits. */
void fixed_seed(uint32_t seed);
/* Weights, logits and a dense layer's steps that were held at the end of 16 bits since it was last cleared. */
extern uint32_t fixed_saturated;

/* Forward: `out` is written and its exponent set. `shift` is the tensor's own memory of what its sums needed last time;
 * 0 to begin with. `filter` is room for the weights of two output channels:
 * [2 * kernel_height * kernel_width * in_channels]. */
void fixed_dense_forward(struct fixed_values *out, const struct fixed_values *in, const struct fixed_weights *weights,
                         uint16_t slope, uint8_t *shift, const struct engine_dense *shape);
void fixed_conv2d_forward(struct fixed_values *out, const struct fixed_values *in,
                          const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                          const struct engine_window *shape);
/* `line`: room for the input rows that one output row sees: [kernel_height * in_width * in_channels]. */
void fixed_conv2d_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                 const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                 uint8_t *shift, const struct engine_window *shape);
/* Depthwise: `filter` for [kernel_height * kernel_width]. */
void fixed_depthwise_forward(struct fixed_values *out, const struct fixed_values *in,
                             const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                             const struct engine_window *shape);
void fixed_depthwise_forward_sample(struct fixed_values *out, const struct fixed_input *in,
                                    const struct fixed_weights *weights, int16_t *filter, int8_t *line, uint16_t slope,
                                    uint8_t *shift, const struct engine_window *shape);
#if defined(__AVR__) /* the same for weights in ENGINE_FLASH (flash.h), which an AVR reads differently */
void fixed_dense_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                const struct fixed_weights *weights, uint16_t slope, uint8_t *shift,
                                const struct engine_dense *shape);
void fixed_conv2d_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                 const struct fixed_weights *weights, int16_t *filter, uint16_t slope, uint8_t *shift,
                                 const struct engine_window *shape);
void fixed_conv2d_forward_sample_frozen(struct fixed_values *out, const struct fixed_input *in,
                                        const struct fixed_weights *weights, int16_t *filter, int8_t *line,
                                        uint16_t slope, uint8_t *shift, const struct engine_window *shape);
void fixed_depthwise_forward_frozen(struct fixed_values *out, const struct fixed_values *in,
                                    const struct fixed_weights *weights, int16_t *filter, uint16_t slope,
                                    uint8_t *shift, const struct engine_window *shape);
void fixed_depthwise_forward_sample_frozen(struct fixed_values *out, const struct fixed_input *in,
                                           const struct fixed_weights *weights, int16_t *filter, int8_t *line,
                                           uint16_t slope, uint8_t *shift, const struct engine_window *shape);
#endif
/* Pooling keeps the exponent; argmax as engine_max_pool_forward's. */
void fixed_max_pool_forward(struct fixed_values *out, uint8_t *argmax, const struct fixed_values *in,
                            const struct engine_window *shape);
void fixed_average_pool_forward(struct fixed_values *out, const struct fixed_values *in,
                                const struct engine_window *shape);
/* In place, behind pooling; other layers do it on their way. */
void fixed_activate(struct fixed_values *x, uint16_t count, uint16_t slope);
/* The last layer, if dense: logits in 1/256, rounded stochastically, held within 16 bits. */
void fixed_dense_logits(int16_t *logits, const struct fixed_values *in, const struct fixed_weights *weights,
                        const struct engine_dense *shape);
/* The last layer's output as logits, if it is another one. */
void fixed_logits(int16_t *logits, const struct fixed_values *out, uint16_t classes);
/* A sample as 8-bit values, for layers that read it whole. */
void fixed_values_of(struct fixed_values *out, const struct fixed_input *in, uint16_t count);

/* Backward: `in_out` holds the layer's input and receives the gradient with respect to what its activation (`slope`)
 * was given; the weights take their step. `shift` as above, of this gradient.
 * Dense: `step` is room for [out] integers; convolution: `filter` for
 * [2 * kernel_height * kernel_width * out_channels]. */
void fixed_dense_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                          int16_t *step, const struct fixed_values *out_gradient, uint8_t *shift,
                          const struct engine_dense *shape);
void fixed_conv2d_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                           int16_t *filter, const struct fixed_values *out_gradient, uint8_t *shift,
                           const struct engine_window *shape);
/* Depthwise: `filter` for [kernel_height * kernel_width * multiplier]; a multiplier is at most 256. */
void fixed_depthwise_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_weights *weights,
                              int16_t *filter, const struct fixed_values *out_gradient, uint8_t *shift,
                              const struct engine_window *shape);
void fixed_max_pool_backward(struct fixed_values *in_out, uint16_t slope, const uint8_t *argmax,
                             const struct fixed_values *out_gradient, uint8_t *shift,
                             const struct engine_window *shape);
void fixed_average_pool_backward(struct fixed_values *in_out, uint16_t slope, const struct fixed_values *out_gradient,
                                 uint8_t *shift, const struct engine_window *shape);
/* The first trainable layer needs no gradient with respect to its input. */
void fixed_dense_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights, int16_t *step,
                                  const struct fixed_values *out_gradient, const struct engine_dense *shape);
void fixed_conv2d_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights,
                                   const struct fixed_values *out_gradient, const struct engine_window *shape);
void fixed_depthwise_backward_weights(const struct fixed_values *in, const struct fixed_weights *weights,
                                      const struct fixed_values *out_gradient, const struct engine_window *shape);
/* `sum`: room for one sum a weight in use: [kernel_height * kernel_width * in_channels * out_channels], depthwise
 * [kernel_height * kernel_width * out_channels]. */
void fixed_conv2d_backward_sample(const struct fixed_input *in, const struct fixed_weights *weights, fixed_sum *sum,
                                  int8_t *line, const struct fixed_values *out_gradient,
                                  const struct engine_window *shape);
void fixed_depthwise_backward_sample(const struct fixed_input *in, const struct fixed_weights *weights, fixed_sum *sum,
                                     int8_t *line, const struct fixed_values *out_gradient,
                                     const struct engine_window *shape);

/* Softmax cross-entropy as engine_cross_entropy has it, T² included: returns the loss; `gradient` receives [classes]
 * integers, and the exponent, of `step` times its gradient with respect to the logits. step > 0, finite. The logits are
 * destroyed. */
float fixed_cross_entropy(struct fixed_values *gradient, int16_t *logits, uint16_t classes,
                          const struct fixed_target *target, float step);

#endif
