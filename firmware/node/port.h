/* What a port gives a node: bytes, a clock, an identity, samples. Eight functions; everything else is shared. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stdint.h>

int16_t port_read(void);                                /* next byte received, or -1 */
void port_write(const uint8_t *data, uint16_t length);  /* may block until the bytes are queued */
uint32_t port_milliseconds(void);                       /* since boot; wraps */
void port_identity(uint8_t id[8]);                      /* unique to this board, the same at every boot */
uint32_t port_boot_id(void);                            /* another number at every boot */
bool port_set_baud(uint32_t baud);                      /* false: cannot; called after the reply has been sent */
uint32_t port_sample_count(void);
/* Sample `index` < port_sample_count(): MODEL_FEATURES bytes and a label < MODEL_CLASSES. The pointer is valid until
 * the next call. */
const uint8_t *port_sample(uint32_t index, uint16_t *label);

#endif
