/* The fixed-point inner loops for AVR: what fixed.c says in C, a product in 14 to 27 cycles where the compiler takes 60
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

#elif defined(__ELF__) /* without this note a linker takes the program to want an executable stack */
    .section .note.GNU-stack, "", %progbits
#endif
