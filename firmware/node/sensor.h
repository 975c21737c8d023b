/* What a federation's own code gives a board whose samples come from a sensor: these two functions, in C or C++ (then
 * extern "C", which this header sees to), in <folder of the federation file>/sensor/. */
#ifndef SENSOR_H
#define SENSOR_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

void sensor_begin(void); /* once, at boot */
/* Asked again and again while no round is under way; must not wait. True: there is a new sample, its MODEL_FEATURES bytes
 * are in `features` and its label, below MODEL_CLASSES, in `label`. False: neither was touched. */
bool sensor_capture(uint8_t *features, uint16_t *label);

#ifdef __cplusplus
}
#endif

#endif
