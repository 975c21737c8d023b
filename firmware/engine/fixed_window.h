/* What convolutions in fixed point share. Private to firmware/engine. */
#ifndef ENGINE_FIXED_WINDOW_H
#define ENGINE_FIXED_WINDOW_H

#include "fixed_inner.h"
#include "window.h"

/* The input rows that output row `y` sees, as 8-bit values; false if all of them are zero. */
bool fixed_line(int8_t *line, const struct fixed_input *in, struct engine_span rows, uint16_t y,
                const struct engine_window *s);
/* The step of the biases, if there are any. */
void fixed_bias_step(const struct fixed_weights *weights, const struct fixed_values *out_gradient,
                     const struct engine_window *s);
/* Outputs whose tap `tap` falls inside the input; along one axis. */
struct engine_span fixed_seen(uint8_t tap, uint8_t stride, uint8_t pad, uint16_t in_size, uint16_t out_size);

/* Channels that are taken together from `channel` on: 2, or the last one alone. */
static ENGINE_INLINE uint8_t fixed_pair(uint16_t channels, uint16_t channel)
{
    return channels - channel > 1 ? 2 : 1;
}

#endif
