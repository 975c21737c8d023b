/* What a port need not write: a boot id, and a wire of one rate. A port's own function takes the place of one here. */
#include "node/port.h"

#ifndef LINK_BAUD
#error "LINK_BAUD must be defined: the build passes the board's first rate"
#endif

#define DEFAULT __attribute__((weak))

/* Memory that start-up code leaves alone counts on through a reset, and holds noise after power was lost. */
DEFAULT uint32_t port_boot_id(void)
{
    static uint32_t boots __attribute__((section(".noinit")));
    static bool counted; /* zero again at every boot */
    if (!counted) {
        counted = true;
        boots++;
    }
    return boots;
}

DEFAULT bool port_baud_supported(uint32_t baud)
{
    return baud == LINK_BAUD;
}

DEFAULT void port_set_baud(uint32_t baud)
{
    (void)baud;
}
