/* Calls of what fixed_avr*.S replace, for the emulated ATmega, and for the host, which makes them in C. step_run(i) makes
 * the i-th of the calls with which model_weights begins; what they work on lies behind. */
#include "engine/fixed_inner.h"

#if defined(__AVR_ATmega328P__)
#define MEMORY 1664
#else
#define MEMORY 6144
#endif

enum { DOT, DOT_PAIR, DOT_BYTES, UPDATE_ROWS, NEAREST, STOCHASTIC, SLOPED };

/* Of 48 bytes everywhere. x, w, step: bytes into the memory. */
struct call {
    uint16_t function, sums, x, w, step, count, rows;
    int16_t x_skip, w_skip;
    uint16_t x_stride, w_stride, state;
    uint32_t saturated, spoilt; /* a bit for each register that was not kept */
    int32_t sum[4];             /* guards around [1] and [2] */
};

/* What NEAREST, STOCHASTIC and SLOPED do `count` times from `x` on, in place. */
struct operand {
    int32_t value;
    uint16_t by, state;
};

/* Read, written and called from outside the program, which link-time optimisation must not think away. */
__attribute__((used)) int16_t model_weights[MEMORY / 2];
__attribute__((used, noinline, noclone)) void step_run(uint8_t i);

#if defined(__AVR__)
/* fixed_avr_held.S: calls held_target with the arguments that it is given itself. */
void held(void);
extern void (*held_target)(void);
extern uint8_t held_before[32], held_after[32];
#define HELD(function) (held_target = (void (*)(void))(function), (__typeof__(&(function)))held)

static uint32_t spoilt(void)
{
    uint32_t bits = 0;
    for (uint8_t r = 0; r < 32; r++) {
        bits |= held_before[r] == held_after[r] ? 0 : (uint32_t)1 << r;
    }
    return bits;
}
#else
#define HELD(function) (function)

static uint32_t spoilt(void)
{
    return 0;
}
#endif

static void compute(struct operand *operand, struct call *call)
{
    fixed_state = operand->state;
    if (call->function == NEAREST) {
        operand->value = HELD(fixed_nearest)(operand->value, (uint8_t)operand->by);
    } else if (call->function == STOCHASTIC) {
        operand->value = HELD(fixed_stochastic)(operand->value, (uint8_t)operand->by);
    } else {
        operand->value = HELD(fixed_sloped)(operand->value, operand->by);
    }
    operand->state = fixed_state;
    call->spoilt |= spoilt();
}

void step_run(uint8_t i)
{
    uint8_t *const memory = (uint8_t *)model_weights;
    struct call call;
    memcpy(&call, memory + i * sizeof call, sizeof call);
    const int8_t *x = (const int8_t *)memory + call.x;
    int16_t *w = model_weights + call.w / 2;
    const struct fixed_walk walk = { call.count, call.rows, call.x_skip, call.w_skip, call.x_stride, call.w_stride };
    fixed_state = call.state;
    fixed_saturated = call.saturated;
    if (call.function == DOT) {
        call.sum[1] = HELD(fixed_dot)(x, w, call.count);
    } else if (call.function == DOT_PAIR) {
        HELD(fixed_dot_pair)(call.sum + 1, x, w, &walk, (uint8_t)call.sums);
    } else if (call.function == DOT_BYTES) {
        HELD(fixed_dot_bytes)(call.sum + 1, x, (const int8_t *)memory + call.w, &walk, (uint8_t)call.sums);
    } else if (call.function == UPDATE_ROWS) {
        HELD(fixed_update_rows)(w, x, model_weights + call.step / 2, call.count, call.rows, call.w_skip);
    }
    call.spoilt |= spoilt();
    for (uint16_t place = 0; call.function >= NEAREST && place < call.count; place++) {
        struct operand operand;
        memcpy(&operand, x + place * sizeof operand, sizeof operand);
        compute(&operand, &call);
        memcpy(memory + call.x + place * sizeof operand, &operand, sizeof operand);
    }
    if (call.sums == 1) { /* the second is not to be used */
        call.sum[2] = 0;
    }
    call.state = fixed_state;
    call.saturated = fixed_saturated;
    memcpy(memory + i * sizeof call, &call, sizeof call);
}

int main(void)
{
    step_run(0);
    return 0;
}
