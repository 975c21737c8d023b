/* Softmax, cross-entropy, and the exponential and logarithm they need: the C library's differ from target to target.
 * Range reduction and polynomials are those of Moshier's Cephes library (expf, logf). */
#include "inner.h"

#define INFINITE ((uint32_t)0x7f800000)
#define NOT_A_NUMBER ((uint32_t)0x7fc00000)
#define MANTISSA ((uint32_t)0x007fffff)
#define ROOT_HALF ((uint32_t)0x3f3504f3) /* bits of √½ */
#define LN2_HIGH 0.693359375f /* 9 bits: times an exponent it is exact */
#define LN2_LOW (-2.12194440e-4f)

bool engine_is_finite(float x)
{
    return (engine_bits(x) & INFINITE) != INFINITE;
}

float engine_exp(float x)
{
    if (!(x <= 88.0f)) { /* too large, or NaN */
        return x + engine_from_bits(INFINITE);
    }
    if (x < -87.0f) {
        return 0.0f;
    }
    const float halves = x * 1.44269504088896341f;
    const int16_t power = (int16_t)(halves < 0.0f ? halves - 0.5f : halves + 0.5f);
    const float n = (float)power;
    const float r = (x - n * LN2_HIGH) - n * LN2_LOW;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    return p * engine_from_bits((uint32_t)(power + 127) << 23);
}

float engine_log(float x)
{
    /* x = m × 2^power with m in [√½, √2): the mantissa's excess over √½ decides which side it falls */
    const uint32_t excess = engine_bits(x) - ROOT_HALF;
    const int16_t power = (int16_t)((int16_t)((excess >> 23) & 0x1ff) - ((excess >> 31) != 0 ? 512 : 0));
    const float f = engine_from_bits((excess & MANTISSA) + ROOT_HALF) - 1.0f;
    const float n = (float)power;
    const float square = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    p = p * f * square + n * LN2_LOW - 0.5f * square;
    return (f + p) + n * LN2_HIGH;
}

/* Subtract the maximum, so that no exponential overflows; if one is not finite, all become NaN, so that none is lost. */
static void shift(float *logits, uint16_t classes)
{
    float maximum = logits[0];
    bool finite = true;
    for (uint16_t c = 0; c < classes; c++) {
        finite = finite && engine_is_finite(logits[c]);
        maximum = logits[c] > maximum ? logits[c] : maximum;
    }
    for (uint16_t c = 0; c < classes; c++) {
        logits[c] = finite ? logits[c] - maximum : engine_from_bits(NOT_A_NUMBER);
    }
}

static float probability(const struct engine_target *target, uint16_t class)
{
    return target->soft != NULL ? target->soft[class] : (class == target->label ? 1.0f : 0.0f);
}

float engine_cross_entropy(float *logits, uint16_t classes, const struct engine_target *target)
{
    float sum = 0.0f, aligned = 0.0f;
    for (uint16_t c = 0; target->adjustment != NULL && c < classes; c++) {
        logits[c] += target->adjustment[c];
    }
    for (uint16_t c = 0; target->temperature != 1.0f && c < classes; c++) {
        logits[c] /= target->temperature;
    }
    shift(logits, classes);
    for (uint16_t c = 0; c < classes; c++) {
        aligned += probability(target, c) * logits[c];
        logits[c] = engine_exp(logits[c]);
        sum += logits[c];
    }
    const float inverse = 1.0f / sum, weight = target->weight * target->temperature;
    for (uint16_t c = 0; c < classes; c++) {
        logits[c] = weight * (logits[c] * inverse - probability(target, c));
    }
    return weight * target->temperature * (engine_log(sum) - aligned);
}

void engine_softmax(float *logits, uint16_t classes)
{
    float sum = 0.0f;
    shift(logits, classes);
    for (uint16_t c = 0; c < classes; c++) {
        logits[c] = engine_exp(logits[c]);
        sum += logits[c];
    }
    const float inverse = 1.0f / sum;
    for (uint16_t c = 0; c < classes; c++) {
        logits[c] *= inverse;
    }
}
