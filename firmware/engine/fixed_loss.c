/* Softmax and cross-entropy in integers: powers of two by a cubic, one division a sample. */
#include "fixed_inner.h"

#define LOG2_E 47274U   /* in 1/32768 */
#define LN_2 45426U     /* in 1/65536 */
#define FAR_BELOW 16    /* octaves below the maximum from which a class has no share */

/* a * b / 65536. */
static uint16_t high_product(uint16_t a, uint16_t b)
{
    return (uint16_t)((uint32_t)a * b >> 16);
}

/* 2^-x in 1/65536 for x in 1/2^23; at most 65535; error below 9e-5. The cubic is the minimax one on [0, 1). */
static uint16_t power_of_half(uint32_t x)
{
    if (x >> 24 >= FAR_BELOW / 2) {
        return 0;
    }
    const uint16_t f = (uint16_t)(x * 2 >> 8);
    uint16_t p = (uint16_t)(15200U - high_product(f, 2632));
    p = (uint16_t)(45340U - high_product(f, p));
    p = (uint16_t)(UINT16_MAX - high_product(f, p));
    return (uint16_t)((uint32_t)p >> (x * 2 >> 24));
}

/* ln(x / 65536) in 1/65536 for x >= 65536; error below 1.1e-3 up to a thousandfold. */
static uint32_t logarithm(uint32_t x)
{
    uint32_t whole = 0;
    while (x >= 131072) {
        x >>= 1;
        whole += 65536;
    }
    const uint16_t f = (uint16_t)(x - 65536);
    uint16_t p = (uint16_t)(38614U - high_product(f, 10839));
    const uint32_t log2 = whole + ((f >> 1) * (UINT32_C(93362) - high_product(f, p)) >> 15);
    return (log2 >> 4) * (LN_2 >> 4) >> 8;
}

/* step = mantissa * 2^exponent with 15 bits of mantissa. */
static uint16_t mantissa_of(float step, int16_t *exponent)
{
    uint32_t bits;
    memcpy(&bits, &step, sizeof bits);
    *exponent = (int16_t)((int16_t)(bits >> 23 & 0xff) - 127 - 14);
    return (uint16_t)((bits >> 9 & 0x3fff) | 0x4000);
}

static uint16_t share(const struct fixed_target *target, uint16_t class)
{
    return target->soft != NULL ? target->soft[class] : (class == target->label ? FIXED_SHARE_ONE : 0);
}

/* Adds the adjustment and returns the largest logit. */
static int16_t adjust(int16_t *logits, uint16_t classes, const int16_t *adjustment)
{
    int16_t maximum = INT16_MIN;
    for (uint16_t c = 0; c < classes; c++) {
        int32_t value = logits[c];
        if (adjustment != NULL) {
            value += adjustment[c];
            value = value > INT16_MAX ? INT16_MAX : value < INT16_MIN ? INT16_MIN : value;
        }
        logits[c] = (int16_t)value;
        maximum = logits[c] > maximum ? logits[c] : maximum;
    }
    return maximum;
}

/* The step makes error[c] * mantissa of a class's error in 1/32768; its upper 8 bits are kept. */
static void to_values(struct fixed_values *gradient, const int16_t *error, uint16_t classes, uint16_t mantissa,
                      int16_t exponent)
{
    uint16_t largest = 0;
    uint8_t shift = 0;
    for (uint16_t c = 0; c < classes; c++) {
        const uint16_t magnitude = (uint16_t)(error[c] < 0 ? -error[c] : error[c]);
        largest = magnitude > largest ? magnitude : largest;
    }
    for (uint32_t peak = (uint32_t)largest * mantissa; peak >= FIXED_MAX; peak >>= 1) {
        shift++; /* rounded up, the largest still is FIXED_MAX */
    }
    for (uint16_t c = 0; c < classes; c++) {
        gradient->at[c] = (int8_t)fixed_stochastic((int32_t)error[c] * mantissa, shift);
    }
    exponent = (int16_t)(exponent - 15 + shift);
    gradient->exponent = fixed_exponent(exponent);
}

float fixed_cross_entropy(struct fixed_values *gradient, int16_t *logits, uint16_t classes,
                          const struct fixed_target *target, float step)
{
    const int16_t maximum = adjust(logits, classes, target->adjustment);
    const uint16_t per_octave = (uint16_t)((uint32_t)LOG2_E * 256 / target->temperature);
    uint32_t sum = 0, aligned = 0; /* aligned: the target's mean distance below the maximum, in 1/65536 */
    for (uint16_t c = 0; c < classes; c++) {
        const uint16_t below = (uint16_t)(maximum - logits[c]);
        aligned += (uint32_t)below * share(target, c) >> 7;
        const uint16_t power = power_of_half((uint32_t)below * per_octave);
        logits[c] = (int16_t)(power >> 1);
        sum += power;
    }
    const uint32_t inverse = UINT32_MAX / sum; /* at most 65537: a share of one is 32768 */
    for (uint16_t c = 0; c < classes; c++) {
        const int32_t probability = (int32_t)((uint32_t)(uint16_t)logits[c] * inverse >> 16);
        int32_t error = probability - (int32_t)share(target, c);
        logits[c] = (int16_t)(error < -INT16_MAX ? -INT16_MAX : error);
    }
    const uint32_t distance = (aligned << 8) / target->temperature; /* in 1/65536 */
    float loss = (float)(logarithm(sum < 65536 ? 65536 : sum) + distance) * (1.0f / 65536.0f);
    if (target->temperature != 256) {
        const float temperature = (float)target->temperature * (1.0f / 256.0f);
        step *= temperature; /* not its square: by the chain rule's 1 / T */
        loss *= temperature * temperature;
    }
    int16_t exponent;
    const uint16_t mantissa = mantissa_of(step, &exponent);
    to_values(gradient, logits, classes, mantissa, exponent);
    return loss;
}
