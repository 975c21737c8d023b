/* Multiply-adds in AVR assembler (float_avr.S): to the bit what the plain expressions compute. Private to
 * firmware/engine. */
#ifndef ENGINE_FLOAT_AVR_H
#define ENGINE_FLOAT_AVR_H

/* Every ATmega has the multiplier; an ATtiny keeps the plain loops. */
#if defined(__AVR_HAVE_MUL__) && defined(__AVR_HAVE_JMP_CALL__)
#define ENGINE_FLOAT_AVR 1
#else
#define ENGINE_FLOAT_AVR 0
#endif

#if ENGINE_FLOAT_AVR && !defined(__ASSEMBLER__)
#include <stdint.h>

/* y[i] += a × x[i], for x and y that do not overlap. */
void engine_avr_axpy(float *y, const float *x, uint16_t count, float a);

/* lanes[i mod 4] += weight[i] × d[i]. */
void engine_avr_dot(float *lanes, const float *d, uint16_t count, const float *weight);

/* byte × scale + offset. */
float engine_avr_sample(uint8_t byte, float scale, float offset);
#endif

#endif
