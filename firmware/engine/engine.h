/* The training engine: one forward and one backward per layer, float32, C99, nothing but <string.h>.
 *
 * Conventions
 * - Activations are row-major height × width × channels ("channels last", as in Keras), packed at the width in use.
 * - Weights keep Keras's layout and the strides of the widest width the node holds: a narrower width is a prefix of
 *   every channel axis, so only the loop bounds change (slimmable networks, Yu et al. 2019).
 * - A backward kernel overwrites its input activations with the gradient with respect to them, because nothing needs
 *   them any more; while doing so it multiplies by the derivative of the activation that made them (`slope`: 1 linear,
 *   0 ReLU, alpha LeakyReLU), since the sign it depends on is lost at that moment.
 * - Sums run in one documented order and are never contracted (-ffp-contract=off): the same bits on every target.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <stdbool.h>
#include <stdint.h>

/* One training example's features, still 8-bit: feature i is bytes[i] * scale + offset. */
struct engine_sample {
    const uint8_t *bytes;
    float scale;
    float offset;
};

/* Convolution, depthwise convolution and pooling. Conv1D is height 1. Depthwise: out_channels / in_channels is the depth
 * multiplier, the same at every width, and weight_out is not read. Pooling reads neither weight_in nor weight_out. */
struct engine_window {
    uint16_t in_height, in_width, out_height, out_width;
    uint8_t kernel_height, kernel_width;
    uint8_t stride_height, stride_width;
    uint8_t pad_top, pad_left;         /* rows and columns of zeros before the input ("same"); may be 0 */
    uint16_t in_channels, out_channels; /* in use at this width */
    uint16_t weight_in, weight_out;     /* what the stored weight tensor holds: its channel strides */
};

/* Dense over `groups` × `in` features; after Flatten a group is a pixel, elsewhere groups is 1. */
struct engine_dense {
    uint16_t groups;
    uint16_t in, out;               /* in use at this width */
    uint16_t weight_in, weight_out; /* what the stored weight tensor holds */
};

/* What the last layer is trained towards. */
struct engine_target {
    uint16_t label;          /* used if `soft` is NULL */
    const float *soft;       /* [classes] probabilities, or NULL */
    const float *adjustment; /* [classes] added to the logits before the softmax (Menon et al. 2021), or NULL */
    float weight;            /* of this example in the loss; 1 unless said otherwise */
    float temperature;       /* T: the softmax is of logits / T, its cross-entropy counts T² times; 1: as usual */
};

/* Forward: `out` is written, nothing else. bias may be NULL. */
void engine_dense_forward(float *out, const float *in, const float *weight, const float *bias,
                          const struct engine_dense *shape);
void engine_dense_forward_sample(float *out, const struct engine_sample *in, const float *weight, const float *bias,
                                 const struct engine_dense *shape);
void engine_conv2d_forward(float *out, const float *in, const float *weight, const float *bias,
                           const struct engine_window *shape);
void engine_conv2d_forward_sample(float *out, const struct engine_sample *in, const float *weight, const float *bias,
                                  const struct engine_window *shape);
void engine_depthwise_forward(float *out, const float *in, const float *weight, const float *bias,
                              const struct engine_window *shape);
void engine_depthwise_forward_sample(float *out, const struct engine_sample *in, const float *weight,
                                     const float *bias, const struct engine_window *shape);
#if defined(__AVR__) /* the same for weights and bias in ENGINE_FLASH (flash.h), which an AVR reads differently */
void engine_dense_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                 const struct engine_dense *shape);
void engine_dense_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                        const float *bias, const struct engine_dense *shape);
void engine_conv2d_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                  const struct engine_window *shape);
void engine_conv2d_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                         const float *bias, const struct engine_window *shape);
void engine_depthwise_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                     const struct engine_window *shape);
void engine_depthwise_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                            const float *bias, const struct engine_window *shape);
#endif
/* argmax: for the backward pass, the window position (ky * kernel_width + kx) of each of the out elements' maxima, in
 * ⌈log2(kernel_height * kernel_width)⌉ bits each, the last byte filled up. */
void engine_max_pool_forward(float *out, uint8_t *argmax, const float *in, const struct engine_window *shape);
void engine_average_pool_forward(float *out, const float *in, const struct engine_window *shape);
/* In place: x < 0 becomes slope * x (0: ReLU). With slope 1 there is nothing to call it for. */
void engine_activate(float *x, uint16_t count, float slope);

/* Backward. `in_out` holds the layer's input and receives the gradient with respect to what its activation was given;
 * the gradients of weight and bias are multiplied by `scale` and added to `weight_gradient`, `bias_gradient`.
 * Dense may be given weight_gradient == weight (and scale = -learning rate): each weight is read before it is changed.
 * Convolutions read a weight many times, so theirs must not alias. weight_gradient == NULL: a frozen layer. */
void engine_dense_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                           float *bias_gradient, const float *out_gradient, float scale,
                           const struct engine_dense *shape);
void engine_conv2d_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                            float *bias_gradient, const float *out_gradient, float scale,
                            const struct engine_window *shape);
void engine_depthwise_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                               float *bias_gradient, const float *out_gradient, float scale,
                               const struct engine_window *shape);
void engine_max_pool_backward(float *in_out, float slope, const uint8_t *argmax, const float *out_gradient,
                              const struct engine_window *shape);
void engine_average_pool_backward(float *in_out, float slope, const float *out_gradient,
                                  const struct engine_window *shape);

/* The first trainable layer needs no gradient with respect to its input: `_sample` reads the example, `_weights`
 * reads activations that stay as they are (the layers below are frozen). */
void engine_dense_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                  const float *out_gradient, float scale, const struct engine_dense *shape);
void engine_dense_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                   const float *out_gradient, float scale, const struct engine_dense *shape);
void engine_conv2d_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                   const float *out_gradient, float scale, const struct engine_window *shape);
void engine_conv2d_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                    const float *out_gradient, float scale, const struct engine_window *shape);
void engine_depthwise_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                      const float *out_gradient, float scale, const struct engine_window *shape);
void engine_depthwise_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                       const float *out_gradient, float scale, const struct engine_window *shape);

/* Softmax cross-entropy: returns the weighted loss and replaces the logits by its gradient with respect to them. The
 * factor T² makes up for what the temperature takes off the gradient, T (p - q) with it (Hinton, Vinyals, Dean 2015).
 * The maximum is subtracted first; exp and log are the engine's own. Not finite in, not finite out. */
float engine_cross_entropy(float *logits, uint16_t classes, const struct engine_target *target);
void engine_softmax(float *logits, uint16_t classes); /* in place */

/* weight -= step * gradient; gradient *= momentum. With momentum 0 the gradient buffer is cleared for the next batch,
 * otherwise it is the velocity: v = momentum * v + g, weight -= step * v (Sutskever et al. 2013). */
void engine_update(float *weight, float *gradient, uint32_t count, float step, float momentum);

/* What brings a gradient's norm down to `most`, at most 1 (Pascanu, Mikolov, Bengio 2013); 1 if it is not finite. */
float engine_clip(const float *gradient, uint32_t count, float most);

bool engine_is_finite(float x);
float engine_exp(float x); /* relative error below 2e-7 on [-87, 88]; 0 below; infinity above; NaN stays NaN */
float engine_log(float x); /* x > 0 normal; relative error below 2e-7 */

#endif
