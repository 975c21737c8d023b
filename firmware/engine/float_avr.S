/* Multiply-adds for AVR, rounded as IEEE single: the product to nearest even, then the sum to nearest even.
 * About 150 cycles each where avr-libc's two calls take 250: a row's factor is taken apart once, a product stays in
 * registers until it is part of the sum, and mantissas are shifted by multiplication.
 *
 * The fast path takes factors `a` of 2^-40 … 2^25 and x of 2^-86 … 2^102, whose products neither overflow nor are
 * denormal, a normal y, and an x or a y of zero. All else (other magnitudes, denormals, infinities, NaN, a sum that
 * overflows or becomes denormal) starts again in avr-libc's __mulsf3 and __addsf3; nothing has been written by then.
 * Those round as IEEE does too, but for a denormal product that seems halfway because its last bits are gone.
 *
 * A number is taken apart into three bytes of mantissa with the leading one, a sign, and an exponent less an offset:
 * that of y, product and sum is IEEE's less one, so that 0 is the least.
 * avr-gcc's convention: r2 … r17, r28, r29 are the caller's, r1 is zero between functions. */
#include "float_avr.h"

#if ENGINE_FLOAT_AVR

/* r0 and r1 hold products of bytes; T is the sign of y, then of the larger addend and the sum. */
#define A0 r2 /* mantissa of a, the factor */
#define A1 r3
#define A2 r4
#define A_EXPONENT r5
#define MODE r6 /* see below; bit 7: sign of a */
#define ZERO r7
#define B0 r8 /* mantissa of x; then of y; then of the larger addend and the sum */
#define B1 r9
#define B2 r10
#define SIGN r11         /* bit 7: sign of the product; then whether y's is another */
#define LANES_END r12    /* its low byte */
#define EXPONENT r16     /* of x; of the product; then minus the places to shift the smaller addend by */
#define SUM_EXPONENT r17 /* of y; then of the larger addend and the sum */
#define P0 r18           /* product of the mantissas; once rounded, the upper three bytes are its mantissa */
#define P1 r19
#define P2 r20
#define P3 r21
#define P4 r22
#define P5 r23
#define BEYOND r18 /* of the smaller addend, shifted: eight bits past the last place; the lowest stands for all after */
#define S0 r19     /* of the same: mantissa */
#define S1 r22
#define S2 r23
#define POWER r20 /* 2^(bits to shift by) */
#define COUNT r24 /* r25, r24: elements left */
/* X (r27, r26): next x. Y (r29, r28): next factor of a dot product. Z (r31, r30): this y. */

/* Bits of MODE. */
#define PREPARED 0 /* something precedes each element: its own factor, unless */
#define SLOW 1     /* the row's factor is none for the fast path */

/* IEEE exponents that the fast path takes: the least of a product is 87 + 41 - 127 = 1, the greatest, a carry
 * included, 151 + 228 - 127 + 1 = 253. */
#define A_LEAST 87
#define A_COUNT 65
#define X_LEAST 41
#define X_COUNT 188

#include "float_avr_macros.h"

    .section .text.engine_avr_rows, "ax", @progbits

/* void engine_avr_dot(float *lanes, const float *d, uint16_t count, const float *weight) */
    .global engine_avr_dot
    .type engine_avr_dot, @function
engine_avr_dot:
    push LANES_END
    push YL
    push YH
    movw YL, r18
    mov r18, r24
    subi r18, -16
    mov LANES_END, r18
    set
    rcall row
    pop YH
    pop YL
    pop LANES_END
    ret
    .size engine_avr_dot, . - engine_avr_dot

/* void engine_avr_axpy(float *y, const float *x, uint16_t count, float a) */
    .global engine_avr_axpy
    .type engine_avr_axpy, @function
engine_avr_axpy:
    clt

row: /* T: whether each element has its own factor */
    .irp register, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 16, 17
    push r\register
    .endr
    clr ZERO
    clr MODE
    movw ZL, r24
    movw XL, r22
    movw COUNT, r20
    sbiw COUNT, 0
    breq finish
    brts 1f
    movw A0, r16 /* a in r16 … r19 */
    mov A2, r18
    mov SUM_EXPONENT, r19
    rjmp factor
1:  inc MODE
    rjmp next_weight

finish:
    .irp register, 17, 16, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2
    pop r\register
    .endr
    clr r1
    ret

    /* x is nothing for the fast path, unless it is zero: then y stays, unless it is -0 (or thereabouts). */
odd_x:
    cpi EXPONENT, 256 - X_LEAST
    brne 1f
    mov r0, B0
    or r0, B1
    or r0, B2
    brne 1f
    ldd SUM_EXPONENT, Z+3
    cpi SUM_EXPONENT, 0x80
    breq 1f
    adiw ZL, 4
    rjmp next
1:  rjmp slow

element:
    load X+, B0, B1, B2, EXPONENT
    mov SIGN, EXPONENT
    eor SIGN, MODE
    lsl B2
    rol EXPONENT
    subi EXPONENT, X_LEAST
    cpi EXPONENT, X_COUNT
    brcc odd_x
    ror B2 /* the carry is set: the leading one */
    add EXPONENT, A_EXPONENT

    mul A0, B0
    movw P0, r0
    mul A1, B1
    movw P2, r0
    mul A2, B2
    movw P4, r0
    add_product A0, B1, P1, P2, P3 /* no further: as yet the lower four bytes are a product by themselves */
    add_product A1, B0, P1, P2, P3
    add_product A0, B2, P2, P3, P4, P5
    add_product A2, B0, P2, P3, P4, P5
    add_product A1, B2, P3, P4, P5
    add_product A2, B1, P3, P4, P5
    brmi 1f
    lsl P1 /* mantissas' product below 2; P0 matters only as being zero or not */
    rol P2
    three rol, P3, P4, P5
    dec EXPONENT

1:  lsl P2 /* round: the half into the carry */
    brcc product
    breq 3f
2:  add_carry P3, P4, P5
    brcc product
    ror P5
    inc EXPONENT
    rjmp product
3:  or P0, P1 /* none of this touches the carry */
    brne 2b
    sbrc P3, 0 /* a tie: to even */
    rjmp 2b
    rjmp product

same_exponent:
    mov S0, P3 /* S1 and S2 are P4 and P5 */
    clr BEYOND
    rjmp add

product_larger: /* than y: the two change places, y is shifted */
    add SUM_EXPONENT, EXPONENT
    neg EXPONENT
    take_product_sign
    power
    mul B0, POWER
    movw BEYOND, r0
    mov B0, P3
    mul B1, POWER
    add S0, r0
    mov P3, r1
    mul B2, POWER
    mov B1, P4
    mov B2, P5
    movw S1, r0
    add S1, P3
    rjmp shifted

far: /* a byte a time; what falls out at the end sticks to the lowest bit */
    cpi EXPONENT, 256 - 25
    brcs 2f
1:  cpse BEYOND, ZERO
    ori S0, 1
    mov BEYOND, S0
    mov S0, S1
    mov S1, S2
    clr S2
    subi EXPONENT, -8
    cpi EXPONENT, 256 - 8
    brcs 1b
    rjmp add
2:  ldi BEYOND, 1 /* less than a quarter of the last place, whatever it is */
    three clr, S0, S1, S2
    rjmp add

to_odd_y:
    rjmp odd_y

product:
    load_y B0, B1, B2, SUM_EXPONENT
    bst SUM_EXPONENT, 7
    eor SIGN, SUM_EXPONENT
    lsl B2
    rol SUM_EXPONENT
    dec SUM_EXPONENT
    cpi SUM_EXPONENT, 254
    brcc to_odd_y
    ror B2 /* the carry is set: the leading one */
    sub EXPONENT, SUM_EXPONENT
    breq same_exponent
    brcc product_larger

    power
    mul P3, POWER /* P5:P4:P3 × 2^(8 - places) is the product shifted, the byte beyond it included */
    movw BEYOND, r0
    mul P4, POWER
    add S0, r0
    mov P3, r1
    mul P5, POWER
    movw S1, r0
    add S1, P3
shifted:
    cpi EXPONENT, 256 - 8
    brcs far /* by more than eight places */
add:
    tst SIGN
    brmi subtract
    add B0, S0
    adc B1, S1
    adc B2, S2
    brcs carry
round:
    lsl BEYOND
    brcc pack
    breq tie
1:  add_carry B0, B1, B2
    brcs round_carry
pack: /* the leading one makes room for the exponent's last bit */
    inc SUM_EXPONENT
    lsl B2
    lsr SUM_EXPONENT
    ror B2
    bld SUM_EXPONENT, 7
store:
    store_y B0, B1, B2, SUM_EXPONENT
next:
    sbiw COUNT, 1
    breq to_finish
    sbrs MODE, PREPARED
    rjmp element
    rjmp prepared
to_finish:
    rjmp finish

tie:
    sbrc B0, 0 /* to even */
    rjmp 1b
    rjmp pack

carry: /* the sum's, into its mantissa */
    three ror, B2, B1, B0
    ror BEYOND
    brcc 1f
    ori BEYOND, 1
1:  inc SUM_EXPONENT
    cpi SUM_EXPONENT, 254
    brne round
    rjmp slow /* infinite */

round_carry: /* to 2^128 as well: what is packed then is infinity */
    ror B2
    inc SUM_EXPONENT
    rjmp pack

subtract:
    neg BEYOND
    sbc B0, S0
    sbc B1, S1
    sbc B2, S2
    brcs negative
    breq nothing
    brmi to_round
normalise: /* to a leading one */
    subi SUM_EXPONENT, 1
    brcs slow /* denormal */
    lsl BEYOND
    three rol, B0, B1, B2
    brpl normalise
to_round:
    rjmp round

negative: /* exponents are the same, nothing is beyond, the product was larger */
    take_product_sign
    three com, B0, B1, B2
    add_carry B0, B1, B2 /* which com has set */
    brpl normalise
    rjmp pack

nothing: /* +0; the mantissa is zero already */
    clr SUM_EXPONENT
    rjmp store

    /* y is nothing for the fast path, unless it is zero: then the sum is the product. */
odd_y:
    or B0, B1
    or B0, B2
    brne slow
    cpi SUM_EXPONENT, 255
    brne slow
    mov B0, P3
    mov B1, P4
    mov B2, P5
    mov SUM_EXPONENT, EXPONENT
    take_product_sign
    rjmp pack

prepared:
    sbrc MODE, SLOW
    rjmp slow_element
    cp ZL, LANES_END
    brne next_weight
    sbiw ZL, 16
next_weight:
    load Y+, A0, A1, A2, SUM_EXPONENT
factor:
    bst SUM_EXPONENT, 7
    bld MODE, 7
    lsl A2
    rol SUM_EXPONENT
    subi SUM_EXPONENT, A_LEAST
    mov A_EXPONENT, SUM_EXPONENT
    inc A_EXPONENT /* for products of 2 and more */
    cpi SUM_EXPONENT, A_COUNT
    brcc odd_factor
    ror A2 /* the carry is set: the leading one */
    rjmp element

odd_factor:
    ror A2
    ldi r18, 1 << PREPARED | 1 << SLOW
    sbrs MODE, PREPARED /* a dot product has another factor for the next element */
    or MODE, r18
slow_element:
    adiw XL, 4
slow: /* X is past x, Z at y; r8 … r17 survive calls */
    movw r8, XL
    movw r10, ZL
    movw r16, COUNT
    sbiw XL, 4
    load X+, r18, r19, r20, r21
    movw r22, A0
    mov r24, A2
    mov r25, A_EXPONENT
    subi r25, 1 - A_LEAST /* a, put together again */
    lsl r24
    lsr r25
    ror r24
    bst MODE, 7
    bld r25, 7
    clr r1
    call __mulsf3
    movw ZL, r10
    load_y r18, r19, r20, r21
    call __addsf3
    movw ZL, r10
    store_y r22, r23, r24, r25
    movw XL, r8
    movw COUNT, r16
    rjmp next
    .size engine_avr_axpy, . - engine_avr_axpy

#elif defined(__ELF__) && !defined(__AVR__)
    .section .note.GNU-stack, "", %progbits /* linkers would make the stack executable without */
#endif
