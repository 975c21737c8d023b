/* Dense layers: a dense layer is one output pixel that sees `groups` columns of `in` channels. */
#include "inner.h"

static ENGINE_INLINE struct engine_patch dense_patch(const struct engine_dense *shape)
{
    return engine_joined((struct engine_patch){
        .weight_column = (engine_offset)shape->weight_in * shape->weight_out,
        .rows = 1,
        .columns = shape->groups,
        .channels = shape->in,
        .weight_out = shape->weight_out,
    });
}

void engine_dense_forward(float *out, const float *in, const float *weight, const float *bias,
                          const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_patch_forward(out, shape->out, engine_values(in), weight, bias, &patch);
}

void engine_dense_forward_sample(float *out, const struct engine_sample *in, const float *weight, const float *bias,
                                 const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_patch_forward(out, shape->out, engine_bytes(in), weight, bias, &patch);
}

#if defined(__AVR__)
void engine_dense_forward_frozen(float *out, const float *in, const float *weight, const float *bias,
                                  const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_patch_forward(out, shape->out, engine_frozen(engine_values(in)), weight, bias, &patch);
}

void engine_dense_forward_sample_frozen(float *out, const struct engine_sample *in, const float *weight,
                                         const float *bias, const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_patch_forward(out, shape->out, engine_frozen(engine_bytes(in)), weight, bias, &patch);
}
#endif

void engine_dense_backward_weights(const float *in, float *weight_gradient, float *bias_gradient,
                                   const float *out_gradient, float scale, const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_bias_gradient(bias_gradient, out_gradient, scale, 1, shape->out);
    engine_patch_outer(weight_gradient, shape->out, engine_values(in), out_gradient, scale, &patch);
}

void engine_dense_backward_sample(const struct engine_sample *in, float *weight_gradient, float *bias_gradient,
                                  const float *out_gradient, float scale, const struct engine_dense *shape)
{
    const struct engine_patch patch = dense_patch(shape);
    engine_bias_gradient(bias_gradient, out_gradient, scale, 1, shape->out);
    engine_patch_outer(weight_gradient, shape->out, engine_bytes(in), out_gradient, scale, &patch);
}

void engine_dense_backward(float *in_out, float slope, const float *weight, float *weight_gradient,
                           float *bias_gradient, const float *out_gradient, float scale,
                           const struct engine_dense *shape)
{
    engine_bias_gradient(bias_gradient, out_gradient, scale, 1, shape->out);
    for (uint16_t group = 0; group < shape->groups; group++) {
        engine_offset row = (engine_offset)group * shape->weight_in * shape->weight_out;
        for (uint16_t channel = 0; channel < shape->in; channel++, in_out++, row += shape->weight_out) {
            const float v = *in_out;
            struct engine_lanes lanes = { { 0.0f, 0.0f, 0.0f, 0.0f } };
            if (engine_is_zero(v) && engine_is_zero(slope)) { /* a dead ReLU: nothing flows through it */
                *in_out = 0.0f;
                continue;
            }
            if (engine_is_zero(v) || weight_gradient == NULL) {
                engine_dot(&lanes, weight + row, out_gradient, shape->out);
            } else {
                engine_dot_axpy(&lanes, weight + row, weight_gradient + row, scale * v, out_gradient, shape->out);
            }
            *in_out = engine_derivative(engine_lanes_sum(&lanes), v, slope);
        }
    }
}
