/* The key that the build compiles in, node_key.h; without one there is none. */
#include "node/port.h"

#include <string.h>
#ifdef __AVR__
#include <avr/pgmspace.h>
#define IN_FLASH __attribute__((section(".progmem.gcc_node"))) /* below 64 KB, where short instructions reach */
#define COPY memcpy_P
#else
#define IN_FLASH
#define COPY memcpy
#endif

#if defined(__has_include)
#if __has_include("node_key.h")
#include "node_key.h"
#endif
#endif

#define DEFAULT __attribute__((weak))
#define KEY_BYTES 32

DEFAULT bool port_key(uint8_t key[KEY_BYTES])
{
#ifdef NODE_KEY
    static const uint8_t bytes[KEY_BYTES] IN_FLASH = {NODE_KEY};
    COPY(key, bytes, sizeof bytes);
    return true;
#else
    (void)key;
    return false;
#endif
}
