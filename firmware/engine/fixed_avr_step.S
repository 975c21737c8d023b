/* The steps of weights, rounding and slopes in fixed point for AVR: what fixed.c says in C. Empty on other targets.
 * fixed_avr_macros.h has avr-gcc's convention. */
#ifdef __AVR_HAVE_MUL__
#include "fixed_avr_macros.h"

/* r19:r18 = fixed_random(), by way of r27:r26. */
.macro random
    lds r18, fixed_state
    lds r19, fixed_state + 1
    mov r26, r18            /* x ^= x << 7: by a byte up and a bit down */
    clr r27
    mov r0, r19             /* the bit above comes from the upper byte's lowest */
    lsr r0
    ror r26
    ror r27
    eor r18, r27
    eor r19, r26
    mov r26, r19            /* x ^= x >> 9 */
    lsr r26
    eor r18, r26
    eor r19, r18            /* x ^= x << 8 */
    sts fixed_state, r18
    sts fixed_state + 1, r19
.endm

/* One weight's step, for fixed_update_rows; `hold` leads to where it is held within 16 bits, from where it is to go on
 * behind `kept`. */
.macro step_weight hold, kept
    ld r18, X+
    mulsu r22, r18
    sbc r19, r19
    movw r20, r0
    ld r18, X+
    muls r22, r18
    add r21, r0
    adc r19, r1             /* r19:r21:r20 = x * step */
    subi r23, 99            /* + 157 modulo 256 */
    add r20, r23
    ld r0, Z
    ldd r1, Z + 1
    adc r0, r21
    adc r1, r19
    brvs \hold
\kept:
    st Z+, r0
    st Z+, r1
.endm

/* void fixed_update_rows(int16_t *w r25:r24, const int8_t *x r23:r22, const int16_t *step r21:r20,
 *                        uint16_t count r19:r18 > 0, uint16_t rows r17:r16 > 0, ptrdiff_t w_skip r15:r14)
 * Z: w, X: step, Y: x, r7:r6: count in bytes, r11:r10: step's start, r13:r12: rounds of a row, r15:r14: w_skip in bytes,
 * r23: the random byte; in a row: r22: x, r25:r24: rounds left, r19:r21:r20: the product */
    .section .text.fixed_update_rows, "ax", @progbits
    .global fixed_update_rows
    .type fixed_update_rows, @function
fixed_update_rows:
    save 6, 7
    save 10, 29
    movw r30, r24
    movw r28, r22
    movw r10, r20
    movw r12, r18
    movw r6, r18
    lsl r6
    rol r7
    lsl r14
    rol r15
    halve_up r12, r13
    round_up r16, r17
    random
    mov r23, r18
1:  ld r22, Y+
    tst r22
    breq 6f
    movw r26, r10
    movw r24, r12
    brts 3f
2:  step_weight .Lfirst_held, .Lfirst_kept     /* 26.5 cycles a weight */
3:  step_weight .Lsecond_held, .Lsecond_kept
    dec r24
    brne 2b
    dec r25
    brne 2b
4:  add r30, r14
    adc r31, r15
    dec r16
    brne 1b
    dec r17
    brne 1b
    clr r1
    restore 10, 29
    restore 6, 7
    ret
6:  add r30, r6             /* nothing to add: past the row */
    adc r31, r7
    rjmp 4b
.Lfirst_held:
    rcall .Lhold
    rjmp .Lfirst_kept
.Lsecond_held:
    rcall .Lhold
    rjmp .Lsecond_kept
.Lhold:                     /* r1:r0 = the end of 16 bits on the side that the product's sign says */
    lsl r19
    sbc r0, r0
    com r0                  /* 0xff upwards, 0x00 downwards */
    ldi r19, 0x80
    eor r19, r0
    mov r1, r19
    lds r20, fixed_saturated
    lds r21, fixed_saturated + 1
    subi r20, lo8(-1)
    sbci r21, hi8(-1)
    sts fixed_saturated, r20
    sts fixed_saturated + 1, r21
    brne 7f
    lds r20, fixed_saturated + 2
    lds r21, fixed_saturated + 3
    subi r20, lo8(-1)
    sbci r21, hi8(-1)
    sts fixed_saturated + 2, r20
    sts fixed_saturated + 3, r21
7:  ret
    .size fixed_update_rows, .-fixed_update_rows

/* x, r25:r22 and above it r26, up by as many bits as \count says, at least one. */
.macro shift_up count
.Lup\@:
    lsl r22
    rol r23
    rol r24
    rol r25
    rol r26
    dec \count
    brne .Lup\@
.endm

/* x down by as many bits as r20 says, at least one. */
.macro shift_down
.Ldown\@:
    asr r25
    ror r24
    ror r23
    ror r22
    dec r20
    brne .Ldown\@
.endm

/* r21 = 0, and it and the registers below it up by as many bits as r20 says, at least one; what comes in from below, any
 * bits, stays in the lowest register. */
.macro upper_bits lowest:vararg
    clr r21
    mov r26, r20
.Lupper\@:
    .irp r, \lowest
    rol \r
    .endr
    rol r21
    dec r26
    brne .Lupper\@
.endm

/* x += \low and \high a byte further up, into r26 if \top says so. */
.macro add_random low, high, top
    add r22, \low
    adc r23, \high
    adc r24, r1
    adc r25, r1
    .ifnb \top
    adc \top, r1
    .endif
.endm

/* \to = a byte of \from's sign bits. */
.macro sign to, from
    mov \to, \from
    lsl \to
    sbc \to, \to
.endm

/* int32_t fixed_stochastic(int32_t x r25:r22, uint8_t n r20 < 32)
 * int32_t fixed_nearest(int32_t x r25:r22, uint8_t n r20 < 32): the same with a half for the random part
 * r19:r18: the random part. Whole bytes are moved; the bits left over are shifted the shorter way, down, or up and then
 * down by a byte more. */
    .section .text.fixed_rounding, "ax", @progbits
.Lfrom_16:
    subi r20, 16
    breq 1f
    shift_down
1:  add_random r18, r19
    movw r22, r24
    sign r24, r23
    mov r25, r24
    ret
    .global fixed_nearest
    .type fixed_nearest, @function
fixed_nearest:
    ldi r18, 0x00
    ldi r19, 0x80
    rjmp .Lround
    .size fixed_nearest, .-fixed_nearest
    .global fixed_stochastic
    .type fixed_stochastic, @function
fixed_stochastic:
    random
.Lround:
    cpi r20, 16
    brsh .Lfrom_16
    cpi r20, 9
    brlo .Lto_8
    subi r20, 8
    cpi r20, 4
    brsh .Lfrom_12
    upper_bits r18, r19     /* n from 9 to 11: the random part's upper n bits, r21:r19 */
    add_random r19, r21
    shift_down
    mov r22, r23
    mov r23, r24
    mov r24, r25
    sign r25, r24
    ret
.Lfrom_12:
    sign r26, r25           /* n from 12 to 15: up by 16 - n */
    ldi r21, 8
    sub r21, r20
    shift_up r21
    add_random r18, r19, r26
    movw r22, r24
    mov r24, r26
    sign r25, r24
    ret
.Lto_8:
    cpi r20, 4
    brlo .Lto_3
    sign r26, r25           /* n from 4 to 8: up by 8 - n; the random part's upper byte counts */
    ldi r21, 8
    sub r21, r20
    breq 1f
    shift_up r21
1:  add_random r19, r1, r26
    mov r22, r23
    mov r23, r24
    mov r24, r25
    mov r25, r26
    ret
.Lto_3:
    tst r20
    breq 1f
    upper_bits r19          /* n from 1 to 3: the random part's upper n bits, r21 */
    add_random r21, r1
    shift_down
1:  ret
    .size fixed_stochastic, .-fixed_stochastic

/* int32_t fixed_sloped(int32_t x r25:r22, uint16_t slope r21:r20)
 * upper half of x: r19:r18, lower: r23:r22; upper half times slope: r27:r26:r31:r30 */
    .section .text.fixed_sloped, "ax", @progbits
    .global fixed_sloped
    .type fixed_sloped, @function
fixed_sloped:
    ldi r18, 0xff
    cp r20, r18
    cpc r21, r18
    breq 9f                 /* FIXED_LINEAR */
    mov r18, r20
    or r18, r21
    breq 8f                 /* ReLU */
    movw r18, r24
    mul r18, r20
    movw r30, r0
    mulsu r19, r21
    movw r26, r0
    mul r18, r21
    clr r18
    add r31, r0
    adc r26, r1
    adc r27, r18
    mulsu r19, r20
    sbc r18, r18
    add r31, r0
    adc r26, r1
    adc r27, r18
    clr r18                 /* and r25:r24:r19, what the lower half makes of it, less its last byte */
    mul r22, r20
    mov r19, r1
    mul r23, r21
    movw r24, r0
    mul r22, r21
    add r19, r0
    adc r24, r1
    adc r25, r18
    mul r23, r20
    add r19, r0
    adc r24, r1
    adc r25, r18
    add r30, r24
    adc r31, r25
    adc r26, r18
    adc r27, r18
    movw r22, r30
    movw r24, r26
    clr r1
9:  ret
8:  clr r22
    clr r23
    movw r24, r22
    ret
    .size fixed_sloped, .-fixed_sloped

#elif defined(__ELF__) && !defined(__AVR__) /* without this note a linker takes the program to want an executable stack */
    .section .note.GNU-stack, "", %progbits
#endif
