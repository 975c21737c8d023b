/* Arduino's cores for tests on this machine: the classes that the stand-ins declare, behaving towards a host as the
 * core does. Everything is in world.h's time. */
#include "ports/arduino/core.h"
#include "world.h"

#define PACKET 64U

static void opened(uint32_t rate)
{
    world.begins++;
    world.rate = rate;
}

#if defined(ARDUINO_ARCH_NRF5) || defined(ARDUINO_NRF52_ADAFRUIT)
extern "C" uint32_t millis(void) { return (uint32_t)(world.now_us / 1000); }
#else
extern "C" unsigned long millis(void) { return (uint32_t)(world.now_us / 1000); }
#endif

#if defined(ARDUINO_ARCH_ESP32)
/* yield() lets only tasks of the same priority run; delay() those below, the watchdog's idle task too. */
extern "C" void yield(void)
{
    world.yields++;
    world_pass(10);
}
extern "C" void delay(uint32_t milliseconds) { world_sleep(1000U * milliseconds); }
extern "C" uint32_t esp_random(void) { return 0x1234; }
EspClass ESP;
uint64_t EspClass::getEfuseMac() { return 0x0000665544332211; }
size_t Print::write(const uint8_t *, size_t) { return 0; }
#elif defined(ARDUINO_ARCH_NRF5) || defined(ARDUINO_NRF52_ADAFRUIT)
extern "C" void yield(void)
{
    world.yields++;
    world.leaves = (uint32_t)world.out.size(); /* Adafruit's sends what fills no packet */
    world_sleep(10);
}
extern "C" void delay(uint32_t milliseconds)
{
    world.leaves = (uint32_t)world.out.size();
    world_sleep(1000U * milliseconds);
}
size_t Print::write(const uint8_t *buffer, size_t size)
{
    size_t sent = 0;
    while (sent < size && write(buffer[sent]) == 1) {
        sent++;
    }
    return sent;
}
#else
extern "C" void yield(void)
{
    world.yields++;
    world_sleep(10);
}
extern "C" void delay(unsigned long milliseconds) { world_sleep(1000U * milliseconds); }
extern "C" unsigned long micros(void) { return (uint32_t)world.now_us; }
size_t arduino::Print::write(const uint8_t *, size_t) { return 0; }
#endif

#if defined(ARDUINO_ARCH_NRF5) || defined(ARDUINO_NRF52_ADAFRUIT) || defined(ARDUINO_ARCH_MBED)
NRF_FICR_Type stand_in_ficr = {{0x44332211, 0x88776655}};
NRF_RNG_Type stand_in_rng = {0, 0, {}, 0x5A};
#endif

#if defined(ARDUINO_ARCH_NRF5)

Uart Serial;
void Uart::begin(unsigned long baudRate)
{
    opened((uint32_t)baudRate);
    world.room_in = 63; /* a ring of 64 */
    world.loses = true;
}
void Uart::begin(unsigned long baudrate, uint16_t) { begin(baudrate); }
void Uart::end()
{
    world.ends++;
    world.in.clear();
}
int Uart::available() { return (int)world.in.size(); }
int Uart::peek() { return world.in.empty() ? -1 : world.in.front(); }
int Uart::read() { return world_take(); }
void Uart::flush() {}
size_t Uart::write(const uint8_t byte)
{
    world_pass(BYTE_US);
    if (world.reads) { /* a UART sends whether or not somebody listens */
        world.read.push_back(byte);
    }
    return 1;
}

#elif defined(ARDUINO_NRF52_ADAFRUIT)

#define FIFO 256U
Adafruit_USBD_CDC Serial;
void Adafruit_USBD_CDC::begin(uint32_t baud)
{
    opened(baud);
    world.room_in = FIFO;
}
void Adafruit_USBD_CDC::end(void) { world.ends++; }
int Adafruit_USBD_CDC::dtr(void) { return world.dtr; }
int Adafruit_USBD_CDC::available(void) { return (int)world.in.size(); }
int Adafruit_USBD_CDC::peek(void) { return -1; }
int Adafruit_USBD_CDC::read(void) { return world_take(); }
void Adafruit_USBD_CDC::flush(void) { world.leaves = (uint32_t)world.out.size(); }
int Adafruit_USBD_CDC::availableForWrite(void) { return (int)(FIFO - world.out.size()); }
size_t Adafruit_USBD_CDC::write(uint8_t byte) { return write(&byte, 1); }
size_t Adafruit_USBD_CDC::write(const uint8_t *buffer, size_t size)
{
    uint64_t since = 0;
    size_t sent = 0;
    while (sent < size && world.dtr) {
        sent += world_enqueue(buffer + sent, size - sent, FIFO);
        if (world.out.size() >= PACKET) {
            flush();
        }
        if (sent < size && !world_wait(since)) {
            break;
        }
    }
    return sent;
}

#elif defined(ARDUINO_ARCH_MBED)

arduino::UART _UART_USB_;
arduino::USBSerial _SerialUSB;
arduino::UART::UART() {}
void arduino::UART::begin(unsigned long rate)
{
    opened((uint32_t)rate);
    world.room_in = 256 + PACKET;
    world.listens = false; /* until the host raises DTR */
}
void arduino::UART::begin(unsigned long rate, uint16_t) { begin(rate); }
void arduino::UART::end() { world.ends++; }
int arduino::UART::available() { return (int)world.in.size(); }
int arduino::UART::peek() { return -1; }
int arduino::UART::read()
{
    world.listens = world.dtr;
    return world_take();
}
void arduino::UART::flush() {}
size_t arduino::UART::write(uint8_t byte) { return write(&byte, 1); }
size_t arduino::UART::write(const uint8_t *data, size_t length) { return _SerialUSB.write(data, length); }
arduino::UART::operator bool() { return world.dtr; }
void arduino::USBCDC::send_nb(uint8_t *buffer, uint32_t size, uint32_t *actual, bool)
{
    *actual = 0;
    if (world.dtr && world.leaves == 0) { /* no packet is under way */
        *actual = (uint32_t)world_enqueue(buffer, size, PACKET);
        world.leaves = *actual;
    }
}
void arduino::USBSerial::begin(unsigned long) {}
int arduino::USBSerial::available() { return 0; }
int arduino::USBSerial::peek() { return -1; }
int arduino::USBSerial::read() { return -1; }
size_t arduino::USBSerial::write(uint8_t byte) { return write(&byte, 1); }
arduino::USBSerial::operator bool() { return world.dtr; }
size_t arduino::USBSerial::write(const uint8_t *data, size_t size)
{
    uint64_t since = 0;
    for (size_t sent = 0; sent < size && world.dtr;) {
        uint32_t taken = 0;
        send_nb(const_cast<uint8_t *>(data) + sent, (uint32_t)(size - sent), &taken);
        sent += taken;
        if (!world_wait(since)) {
            break;
        }
    }
    return size;
}

#elif defined(ARDUINO_ARCH_RENESAS)

#define FIFO 64U
static bool dtr_is_asked;
_SerialUSB SerialUSB;
extern "C" bsp_unique_id_t const *R_BSP_UniqueIdGet(void)
{
    static const bsp_unique_id_t id = {{{0x11111111, 0x22222222, 0x33333333, 0x44444444}}};
    return &id;
}
void _SerialUSB::begin(unsigned long rate)
{
    opened((uint32_t)rate);
    world.room_in = FIFO;
}
void _SerialUSB::begin(unsigned long rate, uint16_t) { begin(rate); }
void _SerialUSB::end() { world.ends++; }
int _SerialUSB::peek() { return -1; }
int _SerialUSB::read() { return world.dtr || dtr_is_asked ? world_take() : -1; }
int _SerialUSB::available() { return (int)world.in.size(); }
int _SerialUSB::availableForWrite() { return (int)(FIFO - world.out.size()); }
void _SerialUSB::flush() { world.leaves = (uint32_t)world.out.size(); }
size_t _SerialUSB::write(uint8_t byte) { return write(&byte, 1); }
size_t _SerialUSB::write(const uint8_t *data, size_t size)
{
    uint64_t since = 0;
    size_t sent = 0;
    while (sent < size && (world.dtr || dtr_is_asked)) {
        sent += world_enqueue(data + sent, size - sent, FIFO);
        flush();
        if (sent < size && !world_wait(since)) {
            break;
        }
    }
    return sent;
}
_SerialUSB::operator bool() { return world.dtr; }
bool _SerialUSB::dtr()
{
    dtr_is_asked = true;
    return world.dtr;
}

#elif !ARDUINO_USB_CDC_ON_BOOT

HardwareSerial Serial(0);
HardwareSerial::HardwareSerial(int) {}
void HardwareSerial::begin(unsigned long baud, uint32_t, int8_t, int8_t, bool, unsigned long, uint8_t)
{
    opened((uint32_t)baud);
    world.room_in = world.room_in > 128 ? world.room_in : 256;
    world.loses = true;
}
void HardwareSerial::end(bool) { world.ends++; }
int HardwareSerial::available(void) { return (int)world.in.size(); }
int HardwareSerial::availableForWrite(void) { return 128; }
int HardwareSerial::peek(void) { return -1; }
int HardwareSerial::read(void) { return world_take(); }
void HardwareSerial::flush(void) {}
size_t HardwareSerial::setRxBufferSize(size_t size)
{
    if (world.begins != world.ends || size <= 128) { /* it is open, or the chip's FIFO is larger */
        return 0;
    }
    world.room_in = (uint32_t)size;
    return size;
}
size_t HardwareSerial::write(uint8_t byte) { return write(&byte, 1); }
size_t HardwareSerial::write(const uint8_t *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        world_pass(BYTE_US);
        if (world.reads) {
            world.read.push_back(data[i]);
        }
    }
    return size;
}
HardwareSerial::operator bool() const { return true; }

#else

#define FIFO (ARDUINO_USB_MODE ? 256U : PACKET)
static uint32_t patience_ms = 250;
STAND_IN_CDC Serial;
size_t STAND_IN_CDC::setRxBufferSize(size_t size) { return world.room_in = (uint32_t)size; }
void STAND_IN_CDC::setTxTimeoutMs(uint32_t timeout) { patience_ms = timeout; }
void STAND_IN_CDC::begin(unsigned long baud)
{
    opened((uint32_t)baud);
    world.loses = true;
}
void STAND_IN_CDC::end() { world.ends++; }
int STAND_IN_CDC::available(void) { return (int)world.in.size(); }
int STAND_IN_CDC::peek(void) { return -1; }
int STAND_IN_CDC::read(void) { return world_take(); }
void STAND_IN_CDC::flush(void) {}
size_t STAND_IN_CDC::write(uint8_t byte) { return write(&byte, 1); }
STAND_IN_CDC::operator bool() const { return world.dtr; }
#if ARDUINO_USB_MODE
/* A host that reads nothing for as long as was set is taken for gone; until it reads, what is oldest makes room. */
static bool gone;
int STAND_IN_CDC::availableForWrite(void) { return (int)(FIFO - world.out.size()); }
size_t STAND_IN_CDC::write(const uint8_t *data, size_t size)
{
    uint64_t since = world.now_us;
    gone = gone && !world.reads;
    for (size_t sent = 0; sent < size;) {
        const size_t taken = world_enqueue(data + sent, size - sent, FIFO);
        sent += taken;
        world.leaves = (uint32_t)world.out.size();
        if (taken == 0 && gone) {
            world.out.pop_front();
            world.leaves--;
        } else if (taken == 0) {
            world_sleep(1000);
            gone = world.now_us - since > 1000U * patience_ms;
        } else {
            since = world.now_us;
        }
    }
    return size;
}
#else
int STAND_IN_CDC::availableForWrite(void) { return world.dtr ? (int)(FIFO - world.out.size()) : 0; }
size_t STAND_IN_CDC::write(const uint8_t *data, size_t size)
{
    uint64_t since = 0;
    size_t sent = 0;
    while (sent < size && world.dtr) {
        sent += world_enqueue(data + sent, size - sent, FIFO);
        world.leaves = (uint32_t)world.out.size();
        if (sent < size && !world_wait(since)) {
            break;
        }
    }
    return sent;
}
#endif

#endif
