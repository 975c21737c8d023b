/* Adafruit TinyUSB Library as it comes with the core 1.7.0: without this header Serial is not linked. Declarations
 * only. */
#ifndef STAND_IN_ADAFRUIT_TINYUSB_H
#define STAND_IN_ADAFRUIT_TINYUSB_H

#include "Arduino.h"

class Adafruit_USBD_CDC : public Stream {
public:
    void begin(uint32_t baud);
    void begin(uint32_t baud, uint8_t config);
    void end(void);
    int dtr(void);
    virtual int available(void);
    virtual int peek(void);
    virtual int read(void);
    virtual void flush(void);
    virtual size_t write(uint8_t);
    virtual size_t write(const uint8_t *buffer, size_t size);
    virtual int availableForWrite(void);
    using Print::write;
    operator bool();
};

extern Adafruit_USBD_CDC Serial;

#endif
