/* How an update is written on the wire: any range of its bytes, made on demand from the weights, so that no copy of
 * it exists and a chunk can be sent again at any time.
 *
 * WEIGHTS are the MODEL_WEIGHT_BYTES as they lie in memory; a fixed-point node has no other. Of float32 differences,
 * n = MODEL_PARAMETERS, w = weights after training, o = weights as they came, element i in wire order, little-endian,
 * every operation rounded to nearest:
 *   DELTA_F32  w[i] - o[i]; 4 n bytes
 *   DELTA_Q8   blocks of PROTOCOL_Q8_BLOCK elements, the last one shorter: float32 scale, then one int8 an element.
 *     Decode:  d[i] = scale * q[i]                              off by less than one scale, and unbiased
 *     Encode:  d = w[i] - o[i];  scale = max|d| / 127 over the block (0 if that is below 2^-126, and then q = 0)
 *              u = (hash32(seed ^ hash32(i + 0x9E3779B9)) >> 8) / 2^24      hash.h; seed is SETUP's
 *              q = floor(d / scale + u), held within -127..127
 */
#ifndef ENCODING_H
#define ENCODING_H

#include <stdbool.h>
#include <stdint.h>

/* What HELLO announces: bits, 1 << encoding. */
uint8_t encoding_supported(void);
bool encoding_is_supported(uint8_t encoding);
/* Choose an encoding (supported) and the seed of its rounding, each time the weights have changed. Returns its size
 * and CRC-32; false if some value to be sent is not finite. */
bool encoding_begin(uint8_t encoding, uint32_t seed, uint32_t *size, uint32_t *crc);
/* Bytes offset..offset + length - 1 of the update. */
void encoding_read(uint32_t offset, uint8_t length, uint8_t *out);

#endif
