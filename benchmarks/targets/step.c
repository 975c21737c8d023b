/* One training step as the host's programs, the chips and their emulators call it. samples.h is generated:
 * STEP_SAMPLES, STEP_RATE and the examples, which stay in flash as a board's do. */
#define MODEL_IMPLEMENTATION
#include "model.h"

#if defined(__AVR__)
#include <avr/pgmspace.h>
#define IN_FLASH PROGMEM
#else
#define IN_FLASH
#endif
#include "samples.h"

#if defined(__AVR__)
#define LABEL(at) pgm_read_byte(&step_labels[at])
#else
#define LABEL(at) step_labels[at]
#endif

__attribute__((noinline, used)) void step_run(uint8_t at);

static float backprop(uint8_t at, float scale)
{
#if MODEL_FIXED
    const struct engine_sample sample = { step_samples[at], 0.0f, 0.0f };
    const struct fixed_target target = { LABEL(at), NULL, NULL, 256 };
#else
    const struct engine_sample sample = { step_samples[at], MODEL_INPUT_SCALE, MODEL_INPUT_OFFSET };
    const struct engine_target target = { LABEL(at), NULL, NULL, 1.0f, 1.0f };
#endif
    return model_backprop(0, &sample, &target, scale);
}

#if MODEL_ACCUMULATES
float step_batches(uint32_t count);

/* Batches of all the examples, one after the other; returns the mean loss of the last. */
float step_batches(uint32_t count)
{
    float loss = 0.0f;
    for (; count > 0; count--) {
        loss = 0.0f;
        for (uint8_t at = 0; at < STEP_SAMPLES; at++) {
            loss += backprop(at, 1.0f);
        }
        model_update(STEP_RATE / (float)STEP_SAMPLES, 0.0f);
    }
    return loss / (float)STEP_SAMPLES;
}
#else
void step_run(uint8_t at)
{
    (void)backprop(at, STEP_RATE);
}
#endif

#if defined(__AVR__)
/* avr-libc's start-up has set the registers and copied .data: from here on the emulator calls step_run. */
int main(void)
{
    step_run(0);
    return 0;
}
#endif
