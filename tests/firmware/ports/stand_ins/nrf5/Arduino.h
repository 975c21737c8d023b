/* The nRF5 core (sandeepmistry/arduino-nRF5 0.8.0), variant nRF52DK: declarations only. */
#ifndef STAND_IN_NRF5_ARDUINO_H
#define STAND_IN_NRF5_ARDUINO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "../nordic/nrf.h"

extern "C" {
void setup(void);
void loop(void);
void yield(void);
uint32_t millis(void);
uint32_t micros(void);
void delay(uint32_t milliseconds);
}

class Print {
public:
    virtual size_t write(uint8_t) = 0;
    virtual size_t write(const uint8_t *buffer, size_t size);
};

class Stream : public Print {
public:
    virtual int available() = 0;
    virtual int read() = 0;
    virtual int peek() = 0;
    virtual void flush() = 0;
};

class Uart : public Stream {
public:
    void begin(unsigned long baudRate);
    void begin(unsigned long baudrate, uint16_t config);
    void end();
    int available();
    int peek();
    int read();
    void flush();
    size_t write(const uint8_t data);
    using Print::write;
    operator bool() { return true; }
};

extern Uart Serial;

#endif
