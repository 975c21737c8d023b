/* The samples that a round trains on, whichever of the three sources the federation file gives this board: flash (the
 * port's shard), the host's stream, or a sensor. From SETUP to the round's end they stay what they are. */
#ifndef SAMPLES_H
#define SAMPLES_H

#include "model.h"

#include <stdbool.h>
#include <stdint.h>

void samples_start(void); /* at boot */
/* Of a stream (stream.c): as SAMPLES said in this round, 0 before. */
uint32_t samples_count(void);
/* Proxy images behind them: all MODEL_PROXY that the plan has room for or, if they are not in the shard, none. */
uint16_t samples_proxies(void);
/* Sample `index` < samples_count(): MODEL_FEATURES bytes and a label < MODEL_CLASSES; from samples_count() on a proxy
 * image, whose label is PROTOCOL_NO_LABEL; of a stream the one that is here, whatever the index. The pointer is valid until the next
 * call. */
const uint8_t *samples_get(uint32_t index, uint16_t *label);
/* How many samples each of `count` labels from `first` on has: u16 each, little-endian, held at 65,535; none of a
 * stream. */
void samples_count_labels(uint16_t first, uint8_t count, uint8_t *counts);

#if MODEL_SOURCE_SENSOR
/* One sample more if the sensor has one, in place of the oldest if there is no room; false if it has none. Not to be
 * called during a round. */
bool samples_capture(void);
#endif

#endif
