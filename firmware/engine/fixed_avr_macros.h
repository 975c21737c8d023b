/* What the assembly of the fixed-point kernels shares.
 *
 * avr-gcc's convention: arguments from r25 downwards in pairs, a 32-bit result in r25:r22; r18 to r27, r30 and r31 are
 * free, r1 is zero between functions; r2 to r17, r28 and r29 are the caller's. MULS and MULSU leave the product in r1:r0
 * and its sign in carry, from which SBC makes a byte of sign bits.
 */
#ifndef ENGINE_FIXED_AVR_MACROS_H
#define ENGINE_FIXED_AVR_MACROS_H

.macro save from, to
    .irp r, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,28,29
    .if \r >= \from && \r <= \to
    push r\r
    .endif
    .endr
.endm

.macro restore from, to
    .irp r, 29,28,17,16,15,14,13,12,11,10,9,8,7,6,5,4,3,2
    .if \r >= \from && \r <= \to
    pop r\r
    .endif
    .endr
.endm

/* Counts are 16 bits, counted down by bytes: the upper one says how often the lower one comes to zero. */
.macro round_up low, high
    cpse \low, r1
    inc \high
.endm

/* A count into rounds of two elements; T: the first round has one. */
.macro halve_up low, high
    bst \low, 0
    sec
    adc \low, r1
    adc \high, r1
    ror \high
    ror \low
    round_up \low, \high
.endm

#endif
