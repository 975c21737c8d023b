/* Constants that take no RAM. On most chips `const` is enough. An AVR copies such data to RAM, unless it lies in a
 * section of the program and is read by instructions of its own; those reach the first 64 KB only, hence the section
 * that the linker puts in front of all others. */
#ifndef ENGINE_FLASH_H
#define ENGINE_FLASH_H

#if defined(__AVR__)
#include <avr/pgmspace.h>
#define ENGINE_FLASH __attribute__((section(".progmem.gcc_engine")))
#define ENGINE_FLASH_U8(x) pgm_read_byte(&(x))
#define ENGINE_FLASH_U16(x) pgm_read_word(&(x))
#define ENGINE_FLASH_COPY(to, from) memcpy_P(&(to), &(from), sizeof(to))
#define ENGINE_FROZEN(kernel) kernel##_frozen /* the forward kernel for weights in ENGINE_FLASH */
#else
#define ENGINE_FLASH
#define ENGINE_FLASH_U8(x) (x)
#define ENGINE_FLASH_U16(x) (x)
#define ENGINE_FLASH_COPY(to, from) memcpy(&(to), &(from), sizeof(to))
#define ENGINE_FROZEN(kernel) kernel
#endif

#endif
