/* The fixed-point sums for AVR: what fixed.c says in C, a product in 14 to 22 cycles where the compiler takes 60 to 100.
 * Empty on other targets. fixed_avr_macros.h has avr-gcc's convention.
 *
 * 8 × 16 bits: the products with a weight's lower byte and with its upper one are summed apart, 24 bits each, which holds
 * 256 of either (127 * 255 * 256 < 2^23); in the end the upper sum is added a byte further up.
 */
#ifdef __AVR_HAVE_MUL__
#include "fixed_avr_macros.h"

/* struct fixed_walk (fixed_inner.h) */
#define COUNT 0
#define ROWS 2
#define X_SKIP 4
#define W_SKIP 6
#define X_STRIDE 8
#define W_STRIDE 10

/* \a2:\a0 += r1:r0, whose sign is in carry; \sign is overwritten. */
.macro add_product sign, a0, a1, a2
    sbc \sign, \sign
    add \a0, r0
    adc \a1, r1
    adc \a2, \sign
.endm

/* \a3:\a0 += r1:r0 likewise. */
.macro add_product_long sign, a0, a1, a2, a3
    add_product \sign, \a0, \a1, \a2
    adc \a3, \sign
.endm

/* The 24 bits \a2:\a0 and, a byte further up, \b2:\b0 into \b2:\b1:\b0:\a0, by way of \sign. */
.macro join sign, a0, a1, a2, b0, b1, b2
    clr \sign
    sbrc \a2, 7
    com \sign
    add \b0, \a1
    adc \b1, \a2
    adc \b2, \sign
.endm

/* Leads X and Z (elements of \bytes) to the next row; r19:r18 is overwritten. */
.macro next_row bytes
    ldd r18, Y + X_SKIP
    ldd r19, Y + X_SKIP + 1
    add r26, r18
    adc r27, r19
    ldd r18, Y + W_SKIP
    ldd r19, Y + W_SKIP + 1
    .if \bytes == 2
    lsl r18
    rol r19
    .endif
    add r30, r18
    adc r31, r19
.endm

/* Stores \a3:\a0 and \b3:\b0 as int32_t sum[2] at Z. */
.macro store_sums a0, a1, a2, a3, b0, b1, b2, b3
    st Z, \a0
    std Z + 1, \a1
    std Z + 2, \a2
    std Z + 3, \a3
    std Z + 4, \b0
    std Z + 5, \b1
    std Z + 6, \b2
    std Z + 7, \b3
.endm

/* One x and the weight at Z, for fixed_dot. Here and below an input is often zero (a pixel, a dead ReLU), and to look is
 * cheaper than to multiply; `zero` leads to where the weight is passed over, from where it is to go on behind `next`. */
.macro multiply_one zero, next
    ld r18, X+
    tst r18
    breq \zero
    ld r19, Z+
    mulsu r18, r19
    add_product r19, r21, r22, r23
    ld r19, Z+
    muls r18, r19
    add_product r19, r24, r25, r17
\next:
.endm

/* One x and the two weights at Z, for fixed_dot_pair. */
.macro multiply_pair
    ld r18, X+
    tst r18
    breq .Lzero\@
    ld r19, Z
    mulsu r18, r19
    add_product r19, r20, r22, r23
    ldd r19, Z + 1
    muls r18, r19
    add_product r19, r24, r25, r2
    ldd r19, Z + 2
    mulsu r18, r19
    add_product r19, r3, r4, r5
    ldd r19, Z + 3
    muls r18, r19
    add_product r19, r6, r7, r8
.Lzero\@:
    add r30, r9
    adc r31, r10
.endm

/* One x and the two bytes at Z, for fixed_dot_bytes. */
.macro multiply_bytes
    ld r18, X
    add r26, r10
    adc r27, r11
    tst r18
    breq .Lzero\@
    ld r19, Z
    ldd r21, Z + 1
    muls r18, r19
    add_product_long r19, r2, r3, r4, r5
    muls r18, r21
    add_product_long r21, r6, r7, r8, r9
.Lzero\@:
    add r30, r12
    adc r31, r13
.endm

/* int32_t fixed_dot(const int8_t *x r25:r24, const int16_t *w r23:r22, uint16_t count r21:r20 <= 256)
 * X: x, Z: w, r20: rounds left; lower sum: r23:r22:r21, upper: r17:r25:r24 */
    .section .text.fixed_dot, "ax", @progbits
    .global fixed_dot
    .type fixed_dot, @function
fixed_dot:
    movw r26, r24
    movw r30, r22
    clr r22
    clr r23
    movw r24, r22
    or r21, r20
    breq 9f                 /* nothing to sum */
    bst r20, 0              /* two elements at a time; of an odd count the first round has one */
    dec r20                 /* 256 is 0: rounds are half of the count less one, and one */
    lsr r20
    inc r20
    push r17
    clr r17
    clr r21
    brts 2f
1:  multiply_one .Lfirst_zero, .Lfirst_done    /* 21.5 cycles a product, 10.5 if x is zero */
2:  multiply_one .Lsecond_zero, .Lsecond_done
    dec r20
    brne 1b
    join r18, r21, r22, r23, r24, r25, r17
    mov r22, r21            /* r17:r25:r24:r21 is the sum */
    mov r23, r24
    mov r24, r25
    mov r25, r17
    clr r1
    pop r17
9:  ret
.Lfirst_zero:
    adiw r30, 2
    rjmp .Lfirst_done
.Lsecond_zero:
    adiw r30, 2
    rjmp .Lsecond_done
    .size fixed_dot, .-fixed_dot

/* void fixed_dot_pair(int32_t sum[2] r25:r24, const int8_t *x r23:r22, const int16_t *w r21:r20,
 *                     const struct fixed_walk *walk r19:r18, uint8_t sums r16)
 * X: x, Z: w, Y: walk; r10:r9: w_stride in bytes, r11: rows left, r12: rounds of a row, r21: rounds left
 * first lower sum: r23:r22:r20, upper: r2:r25:r24; second lower: r5:r4:r3, upper: r8:r7:r6 */
    .section .text.fixed_dot_pair, "ax", @progbits
.Lnothing:
    movw r30, r24
    store_sums r1, r1, r1, r1, r1, r1, r1, r1
    ret
    .global fixed_dot_pair
    .type fixed_dot_pair, @function
fixed_dot_pair:
    movw r30, r18
    ldd r26, Z + COUNT
    ldd r0, Z + COUNT + 1
    or r0, r26
    breq .Lnothing
    ldd r27, Z + ROWS
    ldd r0, Z + ROWS + 1
    or r0, r27
    breq .Lnothing
    save 2, 12
    push r28
    push r29
    push r24
    push r25
    mov r12, r26
    mov r11, r27            /* 256 is 0 */
    movw r26, r22
    movw r30, r20
    movw r28, r18
    ldd r9, Y + W_STRIDE
    ldd r10, Y + W_STRIDE + 1
    lsl r9
    rol r10
    clr r20
    clr r22
    clr r23
    movw r24, r22
    movw r2, r22
    movw r4, r22
    movw r6, r22
    clr r8
    bst r12, 0              /* rounds as in fixed_dot */
    dec r12
    lsr r12
    inc r12
1:  mov r21, r12
    brts 3f
2:  multiply_pair           /* 19.75 cycles a product, 4.25 if x is zero */
3:  multiply_pair
    dec r21
    brne 2b
    dec r11
    breq 4f
    next_row 2
    rjmp 1b
4:  join r18, r20, r22, r23, r24, r25, r2
    join r18, r3, r4, r5, r6, r7, r8
    clr r1
    pop r31
    pop r30
    store_sums r20, r24, r25, r2, r3, r6, r7, r8
    pop r29
    pop r28
    restore 2, 12
    ret
    .size fixed_dot_pair, .-fixed_dot_pair

/* void fixed_dot_bytes(int32_t sum[2] r25:r24, const int8_t *x r23:r22, const int8_t *d r21:r20,
 *                      const struct fixed_walk *walk r19:r18, uint8_t sums r16)
 * X: x, Z: d, Y: walk; r11:r10: x_stride, r13:r12: w_stride, r15:r14: rounds of a row, r23:r22: rows left, r25:r24:
 * rounds left; first sum: r5:r2, second: r9:r6 */
    .section .text.fixed_dot_bytes, "ax", @progbits
    .global fixed_dot_bytes
    .type fixed_dot_bytes, @function
fixed_dot_bytes:
    save 2, 15
    push r28
    push r29
    push r24
    push r25
    movw r26, r22
    movw r30, r20
    movw r28, r18
    clr r2
    clr r3
    movw r4, r2
    movw r6, r2
    movw r8, r2
    ldd r10, Y + X_STRIDE
    ldd r11, Y + X_STRIDE + 1
    ldd r12, Y + W_STRIDE
    ldd r13, Y + W_STRIDE + 1
    ldd r14, Y + COUNT
    ldd r15, Y + COUNT + 1
    ldd r22, Y + ROWS
    ldd r23, Y + ROWS + 1
    mov r0, r14
    or r0, r15
    breq 5f
    mov r0, r22
    or r0, r23
    brne 6f
5:  rjmp 9f
6:  halve_up r14, r15
    round_up r22, r23
1:  movw r24, r14
    brts 3f
2:  multiply_bytes          /* 13.75 cycles a product, 5.25 if x is zero */
3:  multiply_bytes
    dec r24
    brne 2b
    dec r25
    brne 2b
    dec r22
    brne 4f
    dec r23
    breq 8f
4:  next_row 1
    rjmp 1b
8:  clr r1
9:  pop r31
    pop r30
    store_sums r2, r3, r4, r5, r6, r7, r8, r9
    pop r29
    pop r28
    restore 2, 15
    ret
    .size fixed_dot_bytes, .-fixed_dot_bytes

#elif defined(__ELF__) && !defined(__AVR__) /* without this note a linker takes the program to want an executable stack */
    .section .note.GNU-stack, "", %progbits
#endif
