/* Bytes, rate and clock: Serial and millis(). */
#include "arduino_port.h"

#ifdef __AVR__
#include <avr/sleep.h>
#endif

#if !defined(LINK_BAUD) || !defined(LINK_BAUD_MAX)
#error "LINK_BAUD and LINK_BAUD_MAX must be defined: the build passes the board's first and fastest rate"
#endif

#define ESP32_RECEIVE_BYTES 1024 /* its FIFO holds 128, and a sample takes longer than those take to come */

/* Nobody waits for a terminal: `while (!Serial)` would never end on USB while the host leaves DTR low. */
void arduino_begin()
{
#ifdef ARDUINO_ARCH_ESP32
    Serial.setRxBufferSize(ESP32_RECEIVE_BYTES);
#endif
    Serial.begin(LINK_BAUD);
}

int16_t port_read(void)
{
    return (int16_t)Serial.read();
}

void port_write(const uint8_t *data, uint16_t length)
{
    Serial.write(data, length);
}

uint32_t port_milliseconds(void)
{
    return millis();
}

bool port_baud_supported(uint32_t baud)
{
#ifdef __AVR__
    /* The UART divides the clock by 8 times a whole number; 1,000,000 it could do, but the interrupts could not. */
    if (F_CPU / 8UL % baud != 0) {
        return false;
    }
#endif
    return baud >= LINK_BAUD && baud <= LINK_BAUD_MAX;
}

void port_set_baud(uint32_t baud)
{
    Serial.flush();
    Serial.end();
    Serial.begin(baud != 0 ? baud : LINK_BAUD);
}

void arduino_idle()
{
#ifdef __AVR__
    /* Interrupts stay off between looking and sleeping: a byte that comes in between wakes at once. */
    noInterrupts();
    if (Serial.available() == 0) {
        set_sleep_mode(SLEEP_MODE_IDLE); /* the UART and the clock go on */
        sleep_enable();
        interrupts();
        sleep_cpu();
        sleep_disable();
    }
    interrupts();
#endif
}
