/* The rounds of BLAKE2s on an AVR: all four words of a G in registers. A rotation by 16 or 8 only changes which register
 * is which byte; those by 12 and 7 are the same by 16 and 8, and 4 or 1 back to the left. */
#ifdef __AVR__

#define zero r1
#define vector r28    /* Y: v */
#define place r24     /* of the word in its row of v, bytes */
#define turn r19      /* how much further along each next row: 0 in columns, 4 in diagonals */
#define pair r18      /* of words that this G adds, from the schedule */
#define left r25      /* Gs to go */

/* Z to a row's next word, and back. */
    .macro next
    add place, turn
    andi place, 15
    point
    .endm

    .macro back
    sub place, turn
    andi place, 15
    point
    .endm

    .macro point
    movw r30, vector
    add r30, place
    adc r31, zero
    .endm

    .macro load row, b0, b1, b2, b3
    ldd \b0, Z + 16 * \row
    ldd \b1, Z + 16 * \row + 1
    ldd \b2, Z + 16 * \row + 2
    ldd \b3, Z + 16 * \row + 3
    .endm

    .macro store row, b0, b1, b2, b3
    std Z + 16 * \row, \b0
    std Z + 16 * \row + 1, \b1
    std Z + 16 * \row + 2, \b2
    std Z + 16 * \row + 3, \b3
    .endm

    .macro plus a0, a1, a2, a3, b0, b1, b2, b3
    add \a0, \b0
    adc \a1, \b1
    adc \a2, \b2
    adc \a3, \b3
    .endm

    .macro exclusive a0, a1, a2, a3, b0, b1, b2, b3
    eor \a0, \b0
    eor \a1, \b1
    eor \a2, \b2
    eor \a3, \b3
    .endm

/* One bit to the left. */
    .macro rotate b0, b1, b2, b3
    lsl \b0
    rol \b1
    rol \b2
    rol \b3
    adc \b0, zero
    .endm

/* a, in r2 to r5, plus the word of the block whose number is in r26. */
    .macro plus_word
    lsl r26
    lsl r26
    clr r27
    add r26, r22
    adc r27, r23
    ld r0, X+
    add r2, r0
    ld r0, X+
    adc r3, r0
    ld r0, X+
    adc r4, r0
    ld r0, X+
    adc r5, r0
    .endm

/* void blake2s_rounds(uint32_t v[16], const uint32_t block[16], const uint8_t schedule[80]); the last in flash */
    .section .text.blake2s_rounds, "ax", @progbits
    .global blake2s_rounds
    .type blake2s_rounds, @function
blake2s_rounds:
    .irp register, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 28, 29
    push r\register
    .endr
    movw vector, r24
    ldi left, 80
    clr place
    clr turn
each:
    movw r30, r20
    lpm pair, Z+
    movw r20, r30
    point
    load 0, r2, r3, r4, r5
    next
    load 1, r6, r7, r8, r9
    next
    load 2, r10, r11, r12, r13
    next
    load 3, r14, r15, r16, r17

    mov r26, pair
    swap r26
    andi r26, 15
    plus_word
    plus r2, r3, r4, r5, r6, r7, r8, r9
    exclusive r14, r15, r16, r17, r2, r3, r4, r5
    plus r10, r11, r12, r13, r16, r17, r14, r15
    exclusive r6, r7, r8, r9, r10, r11, r12, r13
    ldi r26, 4
1:  rotate r8, r9, r6, r7
    dec r26
    brne 1b

    mov r26, pair
    andi r26, 15
    plus_word
    plus r2, r3, r4, r5, r8, r9, r6, r7
    exclusive r16, r17, r14, r15, r2, r3, r4, r5
    plus r10, r11, r12, r13, r17, r14, r15, r16
    exclusive r8, r9, r6, r7, r10, r11, r12, r13
    rotate r9, r6, r7, r8

    store 3, r17, r14, r15, r16
    back
    store 2, r10, r11, r12, r13
    back
    store 1, r9, r6, r7, r8
    back
    store 0, r2, r3, r4, r5
    subi place, -4
    sbrs place, 4 /* past the row's end: diagonals come after columns, and the other way round */
    rjmp 2f
    clr place
    ldi r26, 4
    eor turn, r26
2:  dec left
    breq 3f
    rjmp each
3:
    .irp register, 29, 28, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2
    pop r\register
    .endr
    ret
    .size blake2s_rounds, . - blake2s_rounds
#endif
