#include "link.h"

uint16_t link_crc16(uint16_t crc, const uint8_t *data, uint16_t length)
{
    for (uint16_t i = 0; i < length; i++) {
        /* One byte of polynomial 0x1021 without table or loop: a few cycles a byte everywhere. */
        uint8_t x = (uint8_t)((crc >> 8) ^ data[i]);
        x ^= (uint8_t)(x >> 4);
        crc = (uint16_t)((uint16_t)(crc << 8) ^ (uint16_t)((uint16_t)x << 12) ^ (uint16_t)((uint16_t)x << 5) ^ x);
    }
    return crc;
}

uint32_t link_crc32(uint32_t crc, const uint8_t *data, uint32_t length)
{
    /* Bitwise: a table would take RAM on AVR, and a transfer is checked only once. */
    crc = ~crc;
    for (uint32_t i = 0; i < length; i++) {
        crc ^= data[i];
        for (uint8_t bit = 0; bit < 8; bit++) {
            crc = (crc & 1U) ? (crc >> 1) ^ 0xEDB88320UL : crc >> 1;
        }
    }
    return ~crc;
}
