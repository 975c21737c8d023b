/* Espressif's core, Arduino 2.0.17 and later. Serial is a UART; where the build sets ARDUINO_USB_CDC_ON_BOOT it is
 * the USB of the chip's serial adapter (HWCDC, where ARDUINO_USB_MODE is 1) or of TinyUSB (USBCDC). */
#ifdef ARDUINO_ARCH_ESP32
#include "ports/arduino/arduino_port.h"

/* A window and the core's own 256: all that a host sends unasked, so that none of it is lost whatever the node does. */
#define RECEIVE_BYTES (256U + LINK_WINDOW * LINK_FRAME_MAX)
#define REST_MS 500U /* the watchdog barks after 5 s, and a step of training may take a while */

void core_start() {}

void core_open(uint32_t rate)
{
    Serial.setRxBufferSize(RECEIVE_BYTES); /* before begin() */
#if ARDUINO_USB_CDC_ON_BOOT && ARDUINO_USB_MODE
    Serial.setTxTimeoutMs(PATIENCE_MS);
#endif
    Serial.begin(rate);
}

bool core_supports(uint32_t rate)
{
    (void)rate; /* its divider has a fraction */
    return true;
}

uint16_t core_put(const uint8_t *data, uint16_t length)
{
#if ARDUINO_USB_CDC_ON_BOOT && !ARDUINO_USB_MODE
    /* USBCDC's write() may wait for ever */
    const int room = Serial.availableForWrite();
    length = room < (int)length ? (uint16_t)room : length;
#endif
    /* A UART waits for the wire alone. HWCDC waits as long as it was told, then drops what is oldest until a host
     * reads: it has to be called for that, so its availableForWrite() is not asked. */
    return length > 0 ? (uint16_t)Serial.write(data, length) : (uint16_t)0;
}

/* yield() lets only tasks of the same priority run. The idle task, which the watchdog looks after, is below: on the
 * one core of the C3 it would starve while a round trains. */
void core_breathe()
{
    static uint32_t rested;
    if (port_milliseconds() - rested >= REST_MS) {
        delay(1);
        rested = port_milliseconds();
    } else {
        yield();
    }
}

void core_idle()
{
    delay(1);
}

void core_identity(uint8_t id[8])
{
    const uint64_t own = ESP.getEfuseMac();
    memcpy(id, &own, 8);
}

uint32_t core_boot_id()
{
    static uint32_t boot;
    if (boot == 0) {
        boot = esp_random() | 1U;
    }
    return boot;
}

#endif
