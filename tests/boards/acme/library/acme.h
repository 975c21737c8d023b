/* What the maker of an invented chip gives a port: a UART, a clock, a serial number. */
#ifndef ACME_H
#define ACME_H

#include <stdbool.h>
#include <stdint.h>

extern const uint8_t acme_serial_number[8];

void acme_start(uint32_t baud);
bool acme_uart_has_byte(void);
uint8_t acme_uart_get(void);
void acme_uart_put(uint8_t byte);
uint32_t acme_milliseconds(void);
void acme_sleep(void);

#endif
