/* What lies below Serial on the Nano 33 BLE (ArduinoCore-mbed 4.5.0, USBCDC.h and PluggableUSBSerial.h). */
#ifndef STAND_IN_PLUGGABLE_USB_SERIAL_H
#define STAND_IN_PLUGGABLE_USB_SERIAL_H

#include "Arduino.h"

namespace arduino {

class USBCDC {
public:
    bool ready();
    bool send(uint8_t *buffer, uint32_t size);
    void send_nb(uint8_t *buffer, uint32_t size, uint32_t *actual, bool now = true);
    void receive_nb(uint8_t *buffer, uint32_t size, uint32_t *actual);
};

class USBSerial : public USBCDC, public HardwareSerial {
public:
    bool connected();
    void begin(unsigned long);
    void begin(unsigned long baudrate, uint16_t config) { begin(baudrate); } /* warns, as the core's own does */
    void end() {}
    int available(void);
    int peek(void);
    int read(void);
    void flush(void) {}
    size_t write(uint8_t c);
    size_t write(const uint8_t *buf, size_t size);
    using Print::write;
    operator bool();
    bool dtr();
    bool rts();
};

}

extern arduino::USBSerial _SerialUSB;

#endif
