/* The Arduino port's own parts: a wire that is Serial, and what to do while there is nothing to do. */
#ifndef ARDUINO_PORT_H
#define ARDUINO_PORT_H

#include <Arduino.h>

extern "C" {
#include "model.h"
#include "node/hash.h"
#include "node/node.h"
#include "node/port.h"
}

void arduino_begin();          /* open the wire at its rate at boot */
void arduino_count_boot();     /* once, before anything asks for the boot id */
void arduino_idle();           /* rest until a byte or a timer's tick comes */

#endif
