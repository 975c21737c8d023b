/* The fixed-point inner loops for AVR: what fixed.c says in C, an element in 12 to 29 cycles where the compiler takes 60
 * to 100. Empty on other targets.
 *
 * avr-gcc's convention: arguments from r25 downwards in pairs, a 32-bit result in r25:r22; r18 to r27, r30 and r31 are
 * free, r1 is zero between functions; r2 to r17, r28 and r29 are the caller's. MULS and MULSU leave the product in r1:r0
 * and its sign in carry, from which SBC makes a byte of sign bits.
 *
 * 8 × 16 bits: the products with a weight's lower byte and with its upper one are summed apart, 24 bits each, which holds
 * 256 of either (127 * 255 * 256 < 2^23); in the end the upper sum is added a byte further up.
 */
#ifdef __AVR__

/* struct fixed_walk (fixed_inner.h) */
#define COUNT 0
#define ROWS 2
#define X_SKIP 4
#define W_SKIP 6
#define X_STRIDE 8
#define W_STRIDE 10

/* \a2:\a0 += r1:r0, whose sign is in carry; r20 is overwritten. */
.macro add_product a0, a1, a2
    sbc r20, r20
    add \a0, r0
    adc \a1, r1
    adc \a2, r20
.endm

/* The 24 bits \a2:\a0 and, a byte further up, \b2:\b0 into \b2:\b1:\b0:\a0, by way of r20. */
.macro join a0, a1, a2, b0, b1, b2
    clr r20
    sbrc \a2, 7
    com r20
    add \b0, \a1
    adc \b1, \a2
    adc \b2, r20
.endm

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

/* r19:r18 = fixed_random(), by way of r21:r20. */
.macro random
    lds r18, fixed_state
    lds r19, fixed_state + 1
    mov r20, r18            /* x ^= x << 7: by a byte up and a bit down */
    clr r21
    mov r0, r19             /* the bit above comes from the upper byte's lowest */
    lsr r0
    ror r20
    ror r21
    eor r18, r21
    eor r19, r20
    mov r20, r19            /* x ^= x >> 9 */
    lsr r20
    eor r18, r20
    eor r19, r18            /* x ^= x << 8 */
    sts fixed_state, r18
    sts fixed_state + 1, r19
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

/* One x and the two weights at Z, for fixed_dot_pair. */
.macro multiply_pair
    ld r18, X+
    ld r19, Z
    mulsu r18, r19
    add_product r2, r3, r4
    ldd r19, Z + 1
    muls r18, r19
    add_product r5, r6, r7
    ldd r19, Z + 2
    mulsu r18, r19
    add_product r8, r9, r10
    ldd r19, Z + 3
    muls r18, r19
    add_product r11, r12, r13
    add r30, r14
    adc r31, r15
.endm

/* One weight's step, for fixed_update_rows; `hold` leads to where it is held within 16 bits, from where it is to go on
 * behind `kept`. */
.macro step_weight hold, kept
    ld r18, X+
    mulsu r22, r18
    sbc r20, r20
    movw r28, r0
    ld r18, X+
    muls r22, r18
    add r29, r0
    adc r20, r1             /* r20:r29:r28 = x * step */
    subi r23, 99            /* + 157 modulo 256 */
    add r28, r23
    ld r18, Z
    ldd r19, Z + 1
    adc r18, r29
    adc r19, r20
    brvs \hold
\kept:
    st Z+, r18
    st Z+, r19
.endm

/* int32_t fixed_dot(const int8_t *x r25:r24, const int16_t *w r23:r22, uint16_t count r21:r20 <= 256) */
    .section .text.fixed_dot, "ax", @progbits
    .global fixed_dot
    .type fixed_dot, @function
fixed_dot:
    push r16
    push r17
    movw r26, r24
    movw r30, r22
    clr r22                 /* lower sum: r17:r16:r22; upper sum: r25:r24:r23 */
    clr r23
    movw r24, r22
    or r21, r20
    breq 9f                 /* nothing to sum */
    mov r21, r20            /* 256 is 0 */
    movw r16, r22
1:  ld r18, X+              /* 21 cycles */
    ld r19, Z+
    mulsu r18, r19
    add_product r22, r16, r17
    ld r19, Z+
    muls r18, r19
    add_product r23, r24, r25
    dec r21
    brne 1b
    join r22, r16, r17, r23, r24, r25
    clr r1
9:  pop r17
    pop r16
    ret
    .size fixed_dot, .-fixed_dot

/* void fixed_dot_pair(int32_t sum[2] r25:r24, const int8_t *x r23:r22, const int16_t *w r21:r20,
 *                     const struct fixed_walk *walk r19:r18, uint8_t sums r16)
 * X: x, Z: w, Y: walk; r17: rows left, r16: rounds of a row, r15:r14: w_stride in bytes
 * first sums: r4:r3:r2 and r7:r6:r5; second: r10:r9:r8 and r13:r12:r11 */
    .section .text.fixed_dot_pair, "ax", @progbits
    .global fixed_dot_pair
    .type fixed_dot_pair, @function
fixed_dot_pair:
    save 2, 29
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
    movw r10, r2
    movw r12, r2
    ldd r14, Y + W_STRIDE
    ldd r15, Y + W_STRIDE + 1
    lsl r14
    rol r15
    ldd r17, Y + ROWS
    ldd r16, Y + COUNT
    ldd r0, Y + COUNT + 1
    or r0, r16
    breq 5f
    ldd r0, Y + ROWS + 1
    or r0, r17              /* 256 is 0 */
    brne 6f
5:  rjmp 9f
6:  bst r16, 0              /* two elements at a time; of an odd count the first round has one */
    dec r16                 /* 256 is 0: rounds are half of the count less one, and one */
    lsr r16
    inc r16
1:  mov r21, r16
    brts 3f
2:  multiply_pair           /* 18.75 cycles a product */
3:  multiply_pair
    dec r21
    breq 4f
    rjmp 2b
4:
    next_row 2
    dec r17
    breq 8f
    rjmp 1b
8:  clr r1
9:  join r2, r3, r4, r5, r6, r7
    join r8, r9, r10, r11, r12, r13
    pop r31
    pop r30
    store_sums r2, r5, r6, r7, r8, r11, r12, r13
    restore 2, 29
    ret
    .size fixed_dot_pair, .-fixed_dot_pair

/* void fixed_dot_bytes(int32_t sum[2] r25:r24, const int8_t *x r23:r22, const int8_t *d r21:r20,
 *                      const struct fixed_walk *walk r19:r18, uint8_t sums r16)
 * X: x, Z: d, Y: walk; r23:r22: rows left, r25:r24: count, r11:r10: x_stride, r13:r12: w_stride
 * first sum: r5:r2, second: r9:r6 */
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
    breq 9f
    mov r0, r22
    or r0, r23
    breq 9f
    round_up r14, r15
    round_up r22, r23
1:  movw r24, r14
2:  ld r18, X               /* 14.5 cycles a product */
    add r26, r10
    adc r27, r11
    ld r19, Z
    ldd r21, Z + 1
    add r30, r12
    adc r31, r13
    muls r18, r19
    add_product r2, r3, r4
    adc r5, r20
    muls r18, r21
    add_product r6, r7, r8
    adc r9, r20
    dec r24
    brne 2b
    dec r25
    brne 2b
    next_row 1
    dec r22
    brne 1b
    dec r23
    brne 1b
    clr r1
9:  pop r31
    pop r30
    store_sums r2, r3, r4, r5, r6, r7, r8, r9
    pop r29
    pop r28
    restore 2, 15
    ret
    .size fixed_dot_bytes, .-fixed_dot_bytes

/* void fixed_update_rows(int16_t *w r25:r24, const int8_t *x r23:r22, const int16_t *step r21:r20,
 *                        uint16_t count r19:r18 > 0, uint16_t rows r17:r16 > 0, ptrdiff_t w_skip r15:r14)
 * Z: w, X: step, r7:r6: count in bytes, r9:r8: x, r11:r10: step's start, r13:r12: rounds, r15:r14: w_skip in bytes
 * r23: the random byte; in a row: r22: x, r25:r24: rounds left, r20 and r29:r28: the product */
    .section .text.fixed_update_rows, "ax", @progbits
    .global fixed_update_rows
    .type fixed_update_rows, @function
fixed_update_rows:
    save 6, 29
    movw r30, r24
    movw r8, r22
    movw r10, r20
    movw r12, r18
    movw r6, r18
    lsl r6
    rol r7
    lsl r14
    rol r15
    bst r12, 0              /* two weights at a time; of an odd count the first round has one */
    sec
    adc r12, r1
    adc r13, r1
    lsr r13
    ror r12
    round_up r12, r13
    round_up r16, r17
    random
    mov r23, r18
1:  movw r26, r8
    ld r22, X+
    movw r8, r26
    tst r22
    brne 5f
    add r30, r6             /* nothing to add: past the row */
    adc r31, r7
    rjmp 4f
5:  movw r26, r10
    movw r24, r12
    brts 3f
2:  step_weight first_held, first_kept   /* 26.5 cycles a weight */
3:  step_weight second_held, second_kept
    dec r24
    brne 2b
    dec r25
    breq 4f
    rjmp 2b
4:  add r30, r14
    adc r31, r15
    dec r16
    breq 9f
    rjmp 1b
9:  dec r17
    breq 9f
    rjmp 1b
9:  clr r1
    restore 6, 29
    ret
first_held:
    rcall hold
    rjmp first_kept
second_held:
    rcall hold
    rjmp second_kept
hold:
    ldi r18, 0xff           /* beyond 16 bits, on the side that the step's sign says */
    ldi r19, 0x7f
    sbrs r20, 7
    rjmp 6f
    ldi r18, 0x00
    ldi r19, 0x80
6:  lds r28, fixed_saturated
    lds r29, fixed_saturated + 1
    adiw r28, 1
    sts fixed_saturated, r28
    sts fixed_saturated + 1, r29
    brne 7f
    lds r28, fixed_saturated + 2
    lds r29, fixed_saturated + 3
    adiw r28, 1
    sts fixed_saturated + 2, r28
    sts fixed_saturated + 3, r29
7:  ret
    .size fixed_update_rows, .-fixed_update_rows

/* int32_t fixed_stochastic(int32_t x r25:r22, uint8_t n r20 < 32)
 * int32_t fixed_nearest(int32_t x r25:r22, uint8_t n r20 < 32): the same with a half for the random part */
    .section .text.fixed_rounding, "ax", @progbits
    .global fixed_nearest
    .type fixed_nearest, @function
fixed_nearest:
    ldi r18, 0x00
    ldi r19, 0x80
    rjmp 1f
    .global fixed_stochastic
    .type fixed_stochastic, @function
fixed_stochastic:
    mov r26, r20
    random
    mov r20, r26
1:  ldi r21, 16
    sub r21, r20            /* r21: 16 - n */
    brcc 2f
    rjmp 6f
2:  brne 2f
    rjmp 5f
2:  cpi r21, 8
    brsh 3f
    subi r20, 8
    cpi r20, 4
    brsh 4f
    clr r21                 /* n from 9 to 11: the random part's upper n bits, r21:r19 */
    mov r26, r20
2:  lsl r18
    rol r19
    rol r21
    dec r26
    brne 2b
    add r22, r19
    adc r23, r21
    adc r24, r1
    adc r25, r1
2:  asr r25                 /* x down by n - 8 */
    ror r24
    ror r23
    ror r22
    dec r20
    brne 2b
    mov r22, r23            /* and by 8 */
    mov r23, r24
    mov r24, r25
    lsl r25
    sbc r25, r25
    ret
4:  mov r26, r25            /* n from 12 to 15: x up by 16 - n, into r26 */
    lsl r26
    sbc r26, r26
2:  lsl r22
    rol r23
    rol r24
    rol r25
    rol r26
    dec r21
    brne 2b
    add r22, r18
    adc r23, r19
    adc r24, r1
    adc r25, r1
    adc r26, r1
    movw r22, r24           /* and down by 16 */
    mov r24, r26
    mov r25, r26
    lsl r25
    sbc r25, r25
    ret
3:  cpi r20, 5
    brlo 7f
    mov r26, r25            /* n from 5 to 8: x up by 8 - n, into r26; of the random part the upper byte counts */
    lsl r26
    sbc r26, r26
    subi r21, 8
    breq 9f
8:  lsl r22
    rol r23
    rol r24
    rol r25
    rol r26
    dec r21
    brne 8b
9:  add r22, r19
    adc r23, r1
    adc r24, r1
    adc r25, r1
    adc r26, r1
    mov r22, r23            /* and down by 8 */
    mov r23, r24
    mov r24, r25
    mov r25, r26
    ret
7:  subi r21, 8             /* n up to 4: r19's upper n bits, and x down bit by bit */
8:  lsr r19
    dec r21
    brne 8b
    add r22, r19
    adc r23, r1
    adc r24, r1
    adc r25, r1
    tst r20
    breq 9f
4:  asr r25
    ror r24
    ror r23
    ror r22
    dec r20
    brne 4b
9:  ret
6:  asr r25                 /* n beyond 16: x down by n - 16 */
    ror r24
    ror r23
    ror r22
    inc r21
    brne 6b
5:  add r22, r18
    adc r23, r19
    adc r24, r1
    adc r25, r1
    movw r22, r24
    lsl r25
    sbc r25, r25
    mov r24, r25
    ret
    .size fixed_nearest, .-fixed_nearest

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
    .size fixed_sloped, .-fixed_sloped

#elif defined(__ELF__) /* without this note a linker takes the program to want an executable stack */
    .section .note.GNU-stack, "", %progbits
#endif
