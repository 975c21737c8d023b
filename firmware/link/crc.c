#include "link.h"

#ifdef __AVR__
#include <avr/pgmspace.h>
/* In the program, among what its linker puts first: short instructions reach 64 KB. */
#define TABLE __attribute__((section(".progmem.gcc_link")))
#define ENTRY(x) pgm_read_dword(&(x))
#else
#define TABLE
#define ENTRY(x) (x)
#endif

/* A byte of polynomial 0x1021 at a time without table or loop, in halves: an 8-bit chip has nothing wider. */
uint16_t link_crc16(uint16_t crc, const uint8_t *data, uint16_t length)
{
    uint8_t high = (uint8_t)(crc >> 8), low = (uint8_t)crc;
    for (; length > 0; length--, data++) {
        uint8_t x = high ^ *data;
        x ^= (uint8_t)(x >> 4);
        high = (uint8_t)(low ^ (uint8_t)(x << 4) ^ (x >> 3));
        low = (uint8_t)(x ^ (uint8_t)(x << 5));
    }
    return (uint16_t)((uint16_t)(high << 8) | low);
}

/* What a byte's two halves do to the CRC: 128 bytes where a table of whole bytes takes 1,024. */
static const uint32_t low_half[16] TABLE = {
    0x00000000, 0x77073096, 0xee0e612c, 0x990951ba, 0x076dc419, 0x706af48f, 0xe963a535, 0x9e6495a3,
    0x0edb8832, 0x79dcb8a4, 0xe0d5e91e, 0x97d2d988, 0x09b64c2b, 0x7eb17cbd, 0xe7b82d07, 0x90bf1d91,
};
static const uint32_t high_half[16] TABLE = {
    0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
    0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
};

uint32_t link_crc32(uint32_t crc, const uint8_t *data, uint32_t length)
{
    crc = ~crc;
    for (const uint8_t *end = data + length; data != end; data++) {
        const uint8_t byte = (uint8_t)(crc ^ *data);
        crc = (crc >> 8) ^ ENTRY(low_half[byte & 15]) ^ ENTRY(high_half[byte >> 4]);
    }
    return ~crc;
}
