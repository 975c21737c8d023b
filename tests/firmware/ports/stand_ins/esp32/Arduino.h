/* Espressif's core (arduino-esp32 2.0.17): declarations only. Serial's class follows the build's flags. */
#ifndef STAND_IN_ESP32_ARDUINO_H
#define STAND_IN_ESP32_ARDUINO_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifndef ARDUINO_USB_CDC_ON_BOOT
#define ARDUINO_USB_CDC_ON_BOOT 0
#endif
#ifndef ARDUINO_USB_MODE
#define ARDUINO_USB_MODE 0
#endif
#define SERIAL_8N1 0x800001c

void setup(void);
void loop(void);
extern "C" {
void yield(void);
unsigned long millis();
unsigned long micros();
void delay(uint32_t milliseconds);
uint32_t esp_random(void);
}

class Print {
public:
    virtual size_t write(uint8_t) = 0;
    virtual size_t write(const uint8_t *buffer, size_t size);
    virtual int availableForWrite() { return 0; }
    virtual void flush() {}
};

class Stream : public Print {
public:
    virtual int available() = 0;
    virtual int read() = 0;
    virtual int peek() = 0;
};

#if !ARDUINO_USB_CDC_ON_BOOT
class HardwareSerial : public Stream {
public:
    HardwareSerial(int uart_nr);
    void begin(unsigned long baud, uint32_t config = SERIAL_8N1, int8_t rxPin = -1, int8_t txPin = -1,
               bool invert = false, unsigned long timeout_ms = 20000UL, uint8_t rxfifo_full_thrhd = 112);
    void end(bool fullyTerminate = true);
    void updateBaudRate(unsigned long baud);
    int available(void);
    int availableForWrite(void);
    int peek(void);
    int read(void);
    void flush(void);
    size_t write(uint8_t);
    size_t write(const uint8_t *buffer, size_t size);
    operator bool() const;
    size_t setRxBufferSize(size_t new_size);
    size_t setTxBufferSize(size_t new_size);
};
extern HardwareSerial Serial;
#else
#if ARDUINO_USB_MODE
#define STAND_IN_CDC HWCDC
#else
#define STAND_IN_CDC USBCDC
#endif
class STAND_IN_CDC : public Stream {
public:
    size_t setRxBufferSize(size_t);
#if ARDUINO_USB_MODE
    size_t setTxBufferSize(size_t);
#endif
    void setTxTimeoutMs(uint32_t timeout);
    void begin(unsigned long baud = 0);
    void end();
    int available(void);
    int availableForWrite(void);
    int peek(void);
    int read(void);
    void flush(void);
    size_t write(uint8_t);
    size_t write(const uint8_t *buffer, size_t size);
    operator bool() const;
};
extern STAND_IN_CDC Serial;
#endif

class EspClass {
public:
    uint64_t getEfuseMac();
};
extern EspClass ESP;

#endif
