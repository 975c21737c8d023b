/* What the parts of the Arduino port include. */
#ifndef ARDUINO_PORT_H
#define ARDUINO_PORT_H

#include "core.h"

extern "C" {
#include "link/link.h"
#include "node/hash.h"
#include "node/node.h"
#include "node/port.h"
}

#if !defined(LINK_BAUD) || !defined(LINK_BAUD_MAX)
#error "LINK_BAUD and LINK_BAUD_MAX must be defined: the build passes the board's first and fastest rate"
#endif

#endif
