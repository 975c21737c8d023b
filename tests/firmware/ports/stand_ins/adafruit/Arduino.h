/* Adafruit's core for the nRF52 (Adafruit_nRF52_Arduino 1.7.0), variant feather_nrf52840_express: declarations only. */
#ifndef STAND_IN_ADAFRUIT_ARDUINO_H
#define STAND_IN_ADAFRUIT_ARDUINO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../nordic/nrf.h"

extern "C" {
void setup(void);
void loop(void);
void yield(void);
uint32_t millis(void);
void delay(uint32_t milliseconds);
}
uint32_t micros(void);

class Print {
public:
    virtual size_t write(uint8_t) = 0;
    virtual size_t write(const uint8_t *buffer, size_t size);
    virtual int availableForWrite() { return 0; }
};

class Stream : public Print {
public:
    virtual int available() = 0;
    virtual int read() = 0;
    virtual int peek() = 0;
    virtual void flush() = 0;
};

#endif
