/* Eight floats, or four, between memory and registers. Private to firmware/engine.
 *
 * An Armv7E-M core moves them with one instruction, where compilers take one for each. It wants them in consecutive
 * registers, hence the fixed ones, which are a register variable's only sure use: as operands of the very next
 * statement.
 */
#ifndef ENGINE_EIGHT_H
#define ENGINE_EIGHT_H

#include "inline.h"

#if defined(__GNUC__) && defined(__ARM_ARCH_7EM__) && defined(__ARM_FP)

static ENGINE_INLINE void engine_load_eight(float to[8], const float *from)
{
    register float a __asm__("s16"), b __asm__("s17"), c __asm__("s18"), d __asm__("s19");
    register float e __asm__("s20"), f __asm__("s21"), g __asm__("s22"), h __asm__("s23");
    __asm__("vldmia %8, {s16-s23}"
            : "=t"(a), "=t"(b), "=t"(c), "=t"(d), "=t"(e), "=t"(f), "=t"(g), "=t"(h)
            : "r"(from), "m"(*(const float(*)[8])from));
    to[0] = a, to[1] = b, to[2] = c, to[3] = d, to[4] = e, to[5] = f, to[6] = g, to[7] = h;
}

static ENGINE_INLINE void engine_store_eight(float *to, const float from[8])
{
    register float a __asm__("s16") = from[0], b __asm__("s17") = from[1], c __asm__("s18") = from[2];
    register float d __asm__("s19") = from[3], e __asm__("s20") = from[4], f __asm__("s21") = from[5];
    register float g __asm__("s22") = from[6], h __asm__("s23") = from[7];
    __asm__("vstmia %1, {s16-s23}"
            : "=m"(*(float(*)[8])to)
            : "r"(to), "t"(a), "t"(b), "t"(c), "t"(d), "t"(e), "t"(f), "t"(g), "t"(h));
}

static ENGINE_INLINE void engine_load_four(float to[4], const float *from)
{
    register float a __asm__("s24"), b __asm__("s25"), c __asm__("s26"), d __asm__("s27");
    __asm__("vldmia %4, {s24-s27}" : "=t"(a), "=t"(b), "=t"(c), "=t"(d) : "r"(from), "m"(*(const float(*)[4])from));
    to[0] = a, to[1] = b, to[2] = c, to[3] = d;
}

static ENGINE_INLINE void engine_store_four(float *to, const float from[4])
{
    register float a __asm__("s24") = from[0], b __asm__("s25") = from[1];
    register float c __asm__("s26") = from[2], d __asm__("s27") = from[3];
    __asm__("vstmia %1, {s24-s27}" : "=m"(*(float(*)[4])to) : "r"(to), "t"(a), "t"(b), "t"(c), "t"(d));
}

#else

static ENGINE_INLINE void engine_load_eight(float to[8], const float *from)
{
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 8; i++) {
        to[i] = from[i];
    }
}

static ENGINE_INLINE void engine_store_eight(float *to, const float from[8])
{
    engine_load_eight(to, from);
}

static ENGINE_INLINE void engine_load_four(float to[4], const float *from)
{
    ENGINE_UNROLL
    for (uint8_t i = 0; i < 4; i++) {
        to[i] = from[i];
    }
}

static ENGINE_INLINE void engine_store_four(float *to, const float from[4])
{
    engine_load_four(to, from);
}

#endif
#endif
