/* A byte of a sample as a float for AVR: byte × scale, rounded to nearest even, + offset.
 * About 65 cycles without an offset, where the calls of avr-libc take 270. */
#include "float_avr.h"

#if ENGINE_FLOAT_AVR

/* float engine_avr_sample(uint8_t byte, float scale, float offset): r24; r20 … r23; r16 … r19; result r22 … r25.
 * The byte, shifted to 128 or more, times the mantissa of scale (r20, r21, r26) gives r30, r31, r26, r27.
 * r25: exponent less one. T: sign. */
    .section .text.engine_avr_sample, "ax", @progbits
    .global engine_avr_sample
    .type engine_avr_sample, @function
engine_avr_sample:
    bst r23, 7
    mov r26, r22
    mov r25, r23
    lsl r26
    rol r25
    dec r25
    cpi r25, 246
    brcc by_library /* scale is zero or denormal, or the product might be infinite */
    ror r26         /* the carry is set: the leading one */
    tst r24
    breq black
    subi r25, -8
    sbrc r24, 7
    rjmp 2f
1:  dec r25
    lsl r24
    brpl 1b
2:  mul r24, r20
    movw r30, r0
    mul r24, r26
    movw r26, r0
    mul r24, r21
    add r31, r0
    adc r26, r1
    clr r1
    adc r27, r1
    brmi 3f
    lsl r30
    rol r31
    rol r26
    rol r27
    dec r25
3:  lsl r30 /* round: the half into the carry */
    brcc 5f
    brne 4f
    sbrs r31, 0 /* a tie: to even */
    rjmp 5f
4:  adc r31, r1
    adc r26, r1
    adc r27, r1
    brcc 5f
    ror r27
    inc r25
5:  inc r25
    lsl r27
    lsr r25
    ror r27
    bld r25, 7
    mov r24, r27
    mov r23, r26
    mov r22, r31
add_offset:
    movw r20, r18
    movw r18, r16
    mov r0, r18
    or r0, r19
    or r0, r20
    or r0, r21
    breq 6f
    jmp __addsf3
6:  ret

black:
    brts by_library /* the product is -0 */
    clr r22
    clr r23
    clr r25 /* r24 is zero */
    rjmp add_offset

by_library:
    push r18
    push r19
    push r20
    push r21
    push r22
    push r23
    mov r22, r24
    clr r23
    clr r24
    clr r25
    call __floatunsisf
    pop r21
    pop r20
    pop r19
    pop r18
    call __mulsf3
    pop r21
    pop r20
    movw r18, r16
    jmp __addsf3
    .size engine_avr_sample, . - engine_avr_sample

#elif defined(__ELF__) && !defined(__AVR__)
    .section .note.GNU-stack, "", %progbits /* linkers would make the stack executable without */
#endif
