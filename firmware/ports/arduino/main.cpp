/* Arduino's entry points. */
#include "arduino_port.h"

void setup()
{
    arduino_count_boot();
    arduino_begin();
    node_start();
}

void loop()
{
    if (!node_poll()) {
        arduino_idle();
    }
    yield(); /* what else the core has to do: USB, a network, a watchdog */
}
