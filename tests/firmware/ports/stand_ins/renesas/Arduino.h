/* Arduino's core for Renesas RA (ArduinoCore-renesas 1.5.3), variant MINIMA: declarations only. */
#ifndef STAND_IN_RENESAS_ARDUINO_H
#define STAND_IN_RENESAS_ARDUINO_H

#include "../api/ArduinoAPI.h"

using namespace arduino;

/* bsp_common.h of Renesas' FSP */
typedef struct st_bsp_unique_id {
    union {
        uint32_t unique_id_words[4];
        uint8_t unique_id_bytes[16];
    };
} bsp_unique_id_t;
extern "C" bsp_unique_id_t const *R_BSP_UniqueIdGet(void);

class _SerialUSB : public arduino::HardwareSerial {
public:
    void begin(unsigned long baud = 115200) override;
    void begin(unsigned long baud, uint16_t config) override;
    void end() override;
    virtual int peek() override;
    virtual int read() override;
    virtual int available() override;
    virtual int availableForWrite() override;
    virtual void flush() override;
    virtual size_t write(uint8_t c) override;
    virtual size_t write(const uint8_t *p, size_t len) override;
    using Print::write;
    operator bool() override;
    bool dtr(); /* from then on Serial works whatever DTR is */
    bool rts();
};

extern _SerialUSB SerialUSB;
#define Serial SerialUSB

#endif
