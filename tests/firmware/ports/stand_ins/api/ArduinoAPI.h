/* ArduinoCore-API 1.5.2, what is used of it: declarations only. The cores of mbed and renesas are built on it. */
#ifndef STAND_IN_ARDUINO_API_H
#define STAND_IN_ARDUINO_API_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

extern "C" {
void setup(void);
void loop(void);
void yield(void);
unsigned long millis(void);
unsigned long micros(void);
void delay(unsigned long milliseconds);
}

typedef uint8_t pin_size_t;
typedef enum { LOW = 0, HIGH = 1, CHANGE = 2, FALLING = 3, RISING = 4 } PinStatus;
typedef enum { INPUT = 0, OUTPUT = 1, INPUT_PULLUP = 2, INPUT_PULLDOWN = 3, OUTPUT_OPENDRAIN = 4 } PinMode;

extern "C" {
void pinMode(pin_size_t pin, PinMode mode);
void digitalWrite(pin_size_t pin, PinStatus status);
PinStatus digitalRead(pin_size_t pin);
int analogRead(pin_size_t pin);
}

namespace arduino {

class Print {
public:
    virtual size_t write(uint8_t byte) = 0;
    virtual size_t write(const uint8_t *buffer, size_t size);
    virtual int availableForWrite() { return 0; } /* as documented: 0 says that a single write may block */
};

class Stream : public Print {
public:
    virtual int available() = 0;
    virtual int read() = 0;
    virtual int peek() = 0;
};

class HardwareSerial : public Stream {
public:
    virtual void begin(unsigned long) = 0;
    virtual void begin(unsigned long baudrate, uint16_t config) = 0;
    virtual void end() = 0;
    virtual int available(void) = 0;
    virtual int peek(void) = 0;
    virtual int read(void) = 0;
    virtual void flush(void) = 0;
    virtual size_t write(uint8_t) = 0;
    using Print::write;
    virtual operator bool() = 0;
};

}

#endif
