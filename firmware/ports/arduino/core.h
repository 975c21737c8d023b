/* What Arduino's cores do each in their own way: a file a core, cores/, of which all but one are empty in a build. */
#ifndef CORE_H
#define CORE_H

/* Their headers are not ours to warn of: what this file includes counts as the system's. AVR's compiler would then take
 * `()` for `(...)`, and its core gives no warnings. */
#ifndef ARDUINO_ARCH_AVR
#pragma GCC system_header
#endif
#include <Arduino.h>
#ifdef ARDUINO_NRF52_ADAFRUIT
#include <Adafruit_TinyUSB.h>
#endif
#ifdef ARDUINO_ARCH_MBED
#include <USB/PluggableUSBSerial.h>
#include <nrf.h>
#endif

/* CORE_USB: Serial is the chip's own USB. It has no rate, and a host that reads nothing stops it. */
#if defined(ARDUINO_ARCH_AVR) || defined(ARDUINO_ARCH_NRF5)
#define CORE_USB 0
#elif defined(ARDUINO_ARCH_ESP32)
#define CORE_USB ARDUINO_USB_CDC_ON_BOOT
#elif defined(ARDUINO_NRF52_ADAFRUIT) || defined(ARDUINO_ARCH_MBED) || defined(ARDUINO_ARCH_RENESAS)
#define CORE_USB 1
#else
#error "this core is not known: give it a file in firmware/ports/arduino/cores, and a line here"
#endif

#define PATIENCE_MS 1000U /* a host that reads nothing for so long is not there */

void core_start();                                          /* once, first of all */
void core_open(uint32_t rate);                              /* open Serial; does not wait for a host */
bool core_supports(uint32_t rate);                          /* the wire can have exactly this rate */
uint16_t core_put(const uint8_t *data, uint16_t length);    /* send what there is room for, and say how much */
void core_breathe();                                        /* called again and again by a node at work */
void core_idle();                                           /* called by a node that has nothing to do */
void core_identity(uint8_t id[8]);                          /* of the chip */
uint32_t core_boot_id();                                    /* another number at every boot, the same until the next */

#endif
