#include "weights.h"

#include "engine/engine.h"
#include "model.h"

#if !defined(__BYTE_ORDER__) || __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights travel as they lie in memory: little-endian targets only"
#endif

uint8_t *weights_bytes(void)
{
    return (uint8_t *)&model_weights;
}

#if MODEL_FIXED
uint32_t weights_first_bad(void)
{
    for (uint16_t i = 0; i < MODEL_EXPONENTS; i++) {
        const int8_t exponent = model_weights.exponents[i];
        if (exponent > FIXED_EXPONENT_LIMIT || exponent < -FIXED_EXPONENT_LIMIT) {
            return i;
        }
    }
    return WEIGHTS_USABLE;
}
#else
uint32_t weights_first_bad(void)
{
    for (uint32_t i = 0; i < MODEL_PARAMETERS; i++) {
        if (!engine_is_finite(model_weights[i])) {
            return i;
        }
    }
    return WEIGHTS_USABLE;
}
#endif
