/* Calls a function and looks at the registers that it must leave as they are: r1, which is zero, r2 to r17, r28, r29. */
#if defined(__AVR__)

    .comm held_target, 2
    .comm held_before, 32
    .comm held_after, 32
    .comm held_own, 32

    .section .text.held, "ax", @progbits
    .global held
    .type held, @function
held:
    .irp r, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,28,29
    sts held_own + \r, r\r
    .endr
    .irp r, 2,3,4,5,6,7,8,9,10,11,12,13,28,29 /* r14 to r17 may be arguments */
    ldi r30, 0xa5 - \r
    mov r\r, r30
    .endr
    .irp r, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,28,29
    sts held_before + \r, r\r
    .endr
    lds r30, held_target
    lds r31, held_target + 1
    icall
    .irp r, 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,28,29
    sts held_after + \r, r\r
    .endr
    .irp r, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,28,29
    lds r\r, held_own + \r
    .endr
    clr r1
    ret
    .size held, .-held

#endif
