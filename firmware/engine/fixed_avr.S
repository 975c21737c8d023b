/* The fixed-point inner loops for AVR: what fixed.c says in C, an element in 18 to 29 cycles where the compiler takes
 * 60 to 100. Empty on other targets.
 *
 * avr-gcc's convention: arguments from r25 downwards in pairs, a 32-bit result in r25:r22; r18 to r27, r30 and r31 are
 * free, r1 is zero between functions; r2 to r17, r28 and r29 are the caller's. MULS, MULSU leave the product in r1:r0
 * and its sign in carry, from which SBC makes a byte of sign bits.
 */
#ifdef __AVR__

/* a32 += r1:r0, sign extended: low byte in \a0. */
.macro add_product a0, a1, a2, a3, sign
    sbc \sign, \sign
    add \a0, r0
    adc \a1, r1
    adc \a2, \sign
    adc \a3, \sign
.endm

/* r25:r22 += r18 * (the 16 bits at Z and Z+1), by halves; \high loads the upper one. r19 and \sign are overwritten. */
.macro multiply_add sign, high:vararg
    mulsu r18, r19
    add_product r22, r23, r24, r25, \sign
    \high
    muls r18, r19
    sbc \sign, \sign
    add r23, r0
    adc r24, r1
    adc r25, \sign
.endm

/* int32_t fixed_dot(const int8_t *x r25:r24, const int16_t *w r23:r22, uint16_t stride r21:r20, uint16_t count r19:r18)
 * count <= 256 */
    .section .text.fixed_dot, "ax", @progbits
    .global fixed_dot
    .type fixed_dot, @function
fixed_dot:
    movw r26, r24
    movw r30, r22
    clr r22
    clr r23
    movw r24, r22
    cp r18, r1
    cpc r19, r1
    breq 9f
    cpi r20, 1
    cpc r21, r1
    brne 2f
    mov r21, r18            /* the count; 256 is 0 */
1:  ld r18, X+              /* weights side by side: 22 cycles */
    ld r19, Z+
    multiply_add r20, ld r19, Z+
    dec r21
    brne 1b
    clr r1
9:  ret
2:  push r16
    push r17
    mov r17, r18
    lsl r20                 /* elements to bytes */
    rol r21
3:  ld r18, X+              /* weights `stride` apart: 24 cycles */
    ld r19, Z
    multiply_add r16, ldd r19, Z+1
    add r30, r20
    adc r31, r21
    dec r17
    brne 3b
    pop r17
    pop r16
    clr r1
    ret
    .size fixed_dot, .-fixed_dot

/* int32_t fixed_dot_bytes(const int8_t *x r25:r24, uint16_t x_stride r23:r22, const int8_t *d r21:r20,
 *                         uint16_t d_stride r19:r18, uint16_t count r17:r16) */
    .section .text.fixed_dot_bytes, "ax", @progbits
    .global fixed_dot_bytes
    .type fixed_dot_bytes, @function
fixed_dot_bytes:
    push r14
    push r15
    push r16
    push r17
    push r28
    movw r26, r24
    movw r30, r20
    movw r20, r22           /* x_stride */
    movw r14, r18           /* d_stride */
    clr r22
    clr r23
    movw r24, r22
    cp r16, r1
    cpc r17, r1
    breq 2f
1:  ld r18, X               /* 20 cycles */
    ld r19, Z
    add r26, r20
    adc r27, r21
    add r30, r14
    adc r31, r15
    muls r18, r19
    add_product r22, r23, r24, r25, r28
    subi r16, 1
    sbci r17, 0
    brne 1b
    clr r1
2:  pop r28
    pop r17
    pop r16
    pop r15
    pop r14
    ret
    .size fixed_dot_bytes, .-fixed_dot_bytes

/* void fixed_update_span(int16_t *w r25:r24, int8_t x r22, const int16_t *step r21:r20, uint16_t count r19:r18 > 0,
 *                        uint8_t random r16) */
    .section .text.fixed_update_span, "ax", @progbits
    .global fixed_update_span
    .type fixed_update_span, @function
fixed_update_span:
    push r16
    push r28
    push r29
    movw r30, r24           /* Z: w */
    movw r26, r20           /* X: step */
    movw r24, r18           /* count */
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
    ldd r19, Z+1
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
3:  ldi r18, 0xff           /* beyond 16 bits: the sign is the opposite of the true one */
    ldi r19, 0x7f
    sbrs r20, 7             /* the step's sign is the sum's */
    rjmp 4f
    ldi r18, 0x00
    ldi r19, 0x80
4:  lds r0, fixed_saturated
    lds r1, fixed_saturated + 1
    movw r28, r0
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
