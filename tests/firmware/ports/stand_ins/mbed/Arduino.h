/* Arduino's core on Mbed OS (ArduinoCore-mbed 4.5.0), variant ARDUINO_NANO33BLE: declarations only. */
#ifndef STAND_IN_MBED_ARDUINO_H
#define STAND_IN_MBED_ARDUINO_H

#include "../api/ArduinoAPI.h"

using namespace arduino;

#define LED_BUILTIN (13u)

namespace arduino {

/* Serial.h: with SERIAL_CDC, as on this variant, the first one is USB's and hands everything on to _SerialUSB. */
class UART : public HardwareSerial {
public:
    UART();
    void begin(unsigned long);
    void begin(unsigned long baudrate, uint16_t config);
    void end();
    int available(void);
    int peek(void);
    int read(void);
    void flush(void);
    size_t write(uint8_t c);
    size_t write(const uint8_t *, size_t);
    using Print::write;
    operator bool();
    bool dtr();
    bool rts();
};

}

extern arduino::UART _UART1_;
extern arduino::UART _UART_USB_;
#define Serial _UART_USB_
#define SerialUSB _UART_USB_
#define Serial1 _UART1_

#endif
