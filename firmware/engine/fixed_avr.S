/* The fixed-point inner loops for AVR: what fixed.c says in C, an element in 20 to 29 cycles where the compiler takes
 * 60 to 100. Empty on other targets.
 *
 * avr-gcc's convention: arguments from r25 downwards in pairs, a 32-bit result in r25:r22; r18 to r27, r30 and r31 are
 * free, r1 is zero between functions; r2 to r17, r28 and r29 are the caller's. MULS and MULSU leave the product in r1:r0
 * and its sign in carry, from which SBC makes a byte of sign bits.
 */
#ifdef __AVR__

/* struct fixed_walk (fixed_inner.h) */
#define COUNT 0
#define ROWS 2
#define X_SKIP 4
#define W_SKIP 6
#define X_STRIDE 8
#define W_STRIDE 10

/* \a3:\a0 += r1:r0, sign extended by way of r20. */
.macro add_product a0, a1, a2, a3
    sbc r20, r20
    add \a0, r0
    adc \a1, r1
    adc \a2, r20
    adc \a3, r20
.endm

/* r25:r22 += r18 * the weight's lower byte in r19. */
.macro multiply_low
    mulsu r18, r19
    add_product r22, r23, r24, r25
.endm

/* r25:r22 += r18 * the weight's upper byte in r19 * 256. */
.macro multiply_high
    muls r18, r19
    sbc r20, r20
    add r23, r0
    adc r24, r1
    adc r25, r20
.endm

/* int32_t fixed_dot(const int8_t *x r25:r24, const int16_t *w r23:r22, const struct fixed_walk *walk r21:r20)
 * X: x, Z: w, Y: walk; r16: count, r17: rows left, r15:r14: w_stride in bytes. rows <= 255, count <= 256 (0) */
    .section .text.fixed_dot, "ax", @progbits
    .global fixed_dot
    .type fixed_dot, @function
fixed_dot:
    push r14
    push r15
    push r16
    push r17
    push r28
    push r29
    movw r26, r24
    movw r30, r22
    movw r28, r20
    clr r22
    clr r23
    movw r24, r22
    ldd r17, Y + ROWS
    ldd r16, Y + COUNT
    ldd r0, Y + COUNT + 1
    or r0, r16
    breq 9f
    tst r17
    breq 9f
    ldd r14, Y + W_STRIDE
    ldd r15, Y + W_STRIDE + 1
    lsl r14
    rol r15
1:  mov r21, r16
    ldi r18, 2
    cp r14, r18
    cpc r15, r1
    brne 4f
2:  ld r18, X+              /* weights side by side: 22 cycles */
    ld r19, Z+
    multiply_low
    ld r19, Z+
    multiply_high
    dec r21
    brne 2b
3:  clr r1
    ldd r18, Y + X_SKIP
    ldd r19, Y + X_SKIP + 1
    add r26, r18
    adc r27, r19
    ldd r18, Y + W_SKIP
    ldd r19, Y + W_SKIP + 1
    lsl r18
    rol r19
    add r30, r18
    adc r31, r19
    dec r17
    brne 1b
9:  pop r29
    pop r28
    pop r17
    pop r16
    pop r15
    pop r14
    ret
4:  ld r18, X+              /* weights a stride apart: 24 cycles */
    ld r19, Z
    multiply_low
    ldd r19, Z + 1
    multiply_high
    add r30, r14
    adc r31, r15
    dec r21
    brne 4b
    rjmp 3b
    .size fixed_dot, .-fixed_dot

/* int32_t fixed_dot_bytes(const int8_t *x r25:r24, const int8_t *d r23:r22, const struct fixed_walk *walk r21:r20)
 * X: x, Z: d, Y: walk; r11:r10: x_stride, r13:r12: w_stride, r15:r14: count, r17:r16: rows left */
    .section .text.fixed_dot_bytes, "ax", @progbits
    .global fixed_dot_bytes
    .type fixed_dot_bytes, @function
fixed_dot_bytes:
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    push r16
    push r17
    push r28
    push r29
    movw r26, r24
    movw r30, r22
    movw r28, r20
    clr r22
    clr r23
    movw r24, r22
    ldd r10, Y + X_STRIDE
    ldd r11, Y + X_STRIDE + 1
    ldd r12, Y + W_STRIDE
    ldd r13, Y + W_STRIDE + 1
    ldd r14, Y + COUNT
    ldd r15, Y + COUNT + 1
    ldd r16, Y + ROWS
    ldd r17, Y + ROWS + 1
    cp r14, r1
    cpc r15, r1
    breq 9f
    cp r16, r1
    cpc r17, r1
    breq 9f
1:  push r14
    push r15
2:  ld r18, X               /* 21 cycles */
    ld r19, Z
    add r26, r10
    adc r27, r11
    add r30, r12
    adc r31, r13
    muls r18, r19
    add_product r22, r23, r24, r25
    dec r14
    brne 2b
    tst r15                 /* a count of more than 256 goes round again */
    breq 3f
    dec r15
    rjmp 2b
3:  pop r15
    pop r14
    clr r1
    ldd r18, Y + X_SKIP
    ldd r19, Y + X_SKIP + 1
    add r26, r18
    adc r27, r19
    ldd r18, Y + W_SKIP
    ldd r19, Y + W_SKIP + 1
    add r30, r18
    adc r31, r19
    subi r16, 1
    sbci r17, 0
    brne 1b
9:  pop r29
    pop r28
    pop r17
    pop r16
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    ret
    .size fixed_dot_bytes, .-fixed_dot_bytes

/* void fixed_update_span(int16_t *w r25:r24, int8_t x r22, const int16_t *step r21:r20, uint16_t count r19:r18 > 0,
 *                        uint8_t random r16)
 * Z: w, X: step */
    .section .text.fixed_update_span, "ax", @progbits
    .global fixed_update_span
    .type fixed_update_span, @function
fixed_update_span:
    push r16
    push r28
    push r29
    movw r30, r24
    movw r26, r20
    movw r24, r18
1:  ld r18, X+              /* 29 cycles */
    mulsu r22, r18
    sbc r20, r20
    movw r28, r0
    ld r18, X+
    muls r22, r18
    add r29, r0
    adc r20, r1             /* r20:r29:r28 = x * step */
    subi r16, 99            /* + 157 modulo 256 */
    add r28, r16
    ld r18, Z
    ldd r19, Z + 1
    adc r18, r29
    adc r19, r20
    brvs 3f
2:  st Z+, r18
    st Z+, r19
    sbiw r24, 1
    brne 1b
    clr r1
    pop r29
    pop r28
    pop r16
    ret
3:  ldi r18, 0xff           /* beyond 16 bits, on the side that the step's sign says */
    ldi r19, 0x7f
    sbrs r20, 7
    rjmp 4f
    ldi r18, 0x00
    ldi r19, 0x80
4:  lds r28, fixed_saturated
    lds r29, fixed_saturated + 1
    adiw r28, 1
    sts fixed_saturated, r28
    sts fixed_saturated + 1, r29
    brne 2b
    lds r28, fixed_saturated + 2
    lds r29, fixed_saturated + 3
    adiw r28, 1
    sts fixed_saturated + 2, r28
    sts fixed_saturated + 3, r29
    rjmp 2b
    .size fixed_update_span, .-fixed_update_span

#endif
