/* What compilers must be told so that constants reach the inner loops. Private to firmware/engine. */
#ifndef ENGINE_INLINE_H
#define ENGINE_INLINE_H

#include <stdint.h>

/* One loop nest serves several kernels; constants passed to it must reach the inner loop. */
#if defined(__GNUC__)
#define ENGINE_INLINE inline __attribute__((always_inline))
#else
#define ENGINE_INLINE inline
#endif

/* Loops of constant count, so that their arrays live in registers and become vectors. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 8
#define ENGINE_UNROLL _Pragma("GCC unroll 16")
#else
#define ENGINE_UNROLL
#endif

#endif
