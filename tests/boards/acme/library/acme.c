/* The chip is a process: its UART is stdin and stdout. */
#include "acme.h"

#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

const uint8_t acme_serial_number[8] = {0, 0, 0, 0, 0, 0, 0, 0xA1};

void acme_start(uint32_t baud)
{
    if (baud != 115200) {
        exit(1);
    }
}

static bool arrives_within(int milliseconds)
{
    struct pollfd uart = {STDIN_FILENO, POLLIN, 0};
    return poll(&uart, 1, milliseconds) > 0;
}

bool acme_uart_has_byte(void)
{
    return arrives_within(0);
}

uint8_t acme_uart_get(void)
{
    uint8_t byte;
    if (read(STDIN_FILENO, &byte, 1) != 1) {
        exit(0); /* unplugged */
    }
    return byte;
}

void acme_uart_put(uint8_t byte)
{
    if (write(STDOUT_FILENO, &byte, 1) != 1) {
        exit(0);
    }
}

uint32_t acme_milliseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint32_t)((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000);
}

void acme_sleep(void)
{
    arrives_within(100);
}
