/* Macros of float_avr.S, in its names of registers. */
#ifndef ENGINE_FLOAT_AVR_MACROS_H
#define ENGINE_FLOAT_AVR_MACROS_H

/* An instruction for each byte of a mantissa. */
.macro three instruction, first, second, third
    \instruction \first
    \instruction \second
    \instruction \third
.endm

/* The carry to a mantissa. */
.macro add_carry first, second, third
    adc \first, ZERO
    adc \second, ZERO
    adc \third, ZERO
.endm

.macro load from, first, second, third, fourth
    ld \first, \from
    ld \second, \from
    ld \third, \from
    ld \fourth, \from
.endm

/* Leaves Z where it is. */
.macro load_y first, second, third, fourth
    ldd \first, Z+0
    ldd \second, Z+1
    ldd \third, Z+2
    ldd \fourth, Z+3
.endm

.macro store_y first, second, third, fourth
    st Z+, \first
    st Z+, \second
    st Z+, \third
    st Z+, \fourth
.endm

/* high:low += a × b, and the carry to the bytes above that it may reach. */
.macro add_product a, b, low, high, above:vararg
    mul \a, \b
    add \low, r0
    adc \high, r1
    .irp byte, \above
    adc \byte, ZERO
    .endr
.endm

/* POWER = 2^(EXPONENT mod 8) */
.macro power
    ldi POWER, 1
    sbrc EXPONENT, 1
    ldi POWER, 4
    sbrc EXPONENT, 0
    lsl POWER
    sbrc EXPONENT, 2
    swap POWER
.endm

/* T, the sign of y, becomes that of the product. */
.macro take_product_sign
    bld r0, 7
    eor r0, SIGN
    bst r0, 7
.endm

#endif
