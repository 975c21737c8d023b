/* What a port gives a node. Four functions are its own; the other seven have a default in ports/common, which a port
 * replaces by defining its own. */
#ifndef PORT_H
#define PORT_H

#include <stdbool.h>
#include <stdint.h>

int16_t port_read(void);                                /* next byte received, or -1; never waits */
void port_write(const uint8_t *data, uint16_t length);  /* may wait until the bytes are queued */
uint32_t port_milliseconds(void);                       /* since boot; wraps */
void port_identity(uint8_t id[8]);                      /* unique to this board, the same at every boot */

/* Another number at every boot, the same until the next. Default: a count in memory that outlives a reset. */
uint32_t port_boot_id(void);
/* The wire's rate can be `baud`. Asked first, because the answer to the host must still leave at the old rate. Default:
 * only the rate at boot. */
bool port_baud_supported(uint32_t baud);
/* Lets everything written leave, then changes the rate; 0 is the rate at boot. */
void port_set_baud(uint32_t baud);
/* Training samples, and behind them proxy images. Default: the shard that the build compiles in. */
uint32_t port_sample_count(void);
uint16_t port_proxy_count(void);
/* Sample `index` < port_sample_count(): MODEL_FEATURES bytes and a label < MODEL_CLASSES; then the proxy images, whose
 * label is PROTOCOL_NO_LABEL. The pointer is valid until the next call. */
const uint8_t *port_sample(uint32_t index, uint16_t *label);
/* The key that whoever uses the node must have; false: it has none. Asked only if NODE_KEYED is 1. Default: the one that
 * the build compiles in. */
bool port_key(uint8_t key[32]);

#endif
