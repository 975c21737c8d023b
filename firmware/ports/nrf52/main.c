#include "nrf52.h"

#include "node/node.h"

int main(void)
{
    chip_begin();
    uart_begin();
    node_start();
    for (;;) {
        if (!node_poll()) {
            chip_idle();
        }
    }
}
