/* The wire: UART0 on the pins that lead to the kits' own USB bridge, 8N1, no flow control. */
#include "nrf52.h"

#include "node/port.h"

#if !defined(LINK_BAUD) || !defined(LINK_BAUD_MAX)
#error "LINK_BAUD and LINK_BAUD_MAX must be defined: the build passes the board's first and fastest rate"
#endif

#ifndef NRF52_TXD_PIN
#define NRF52_TXD_PIN 6U /* P0.06 and P0.08, on the nRF52 DK as on the nRF52840 DK */
#define NRF52_RXD_PIN 8U
#endif
#if NRF52_TXD_PIN > 31 || NRF52_RXD_PIN > 31
#error "NRF52_TXD_PIN and NRF52_RXD_PIN must be pins of port 0"
#endif
#define RING_BYTES 512U /* a power of two; two frames: the next is encoded while the last one leaves */
/* The UART sends whether or not anybody listens: a full ring is gone in 45 ms at 115200 baud. */
#define PATIENCE_MS 100U

static struct ring {
    volatile uint32_t head, tail; /* bytes ever put in and taken out; wrap */
    volatile uint8_t bytes[RING_BYTES];
} received, queued;

static volatile bool sending; /* a byte is in the UART: its interrupt will send the next */

/// Rates ///

/* 0: the UART has no such rate. */
static uint32_t rate_setting(uint32_t baud)
{
    switch (baud) {
    case 115200: return 0x01D7E000;
    case 230400: return 0x03AFB000;
    case 250000: return 0x04000000;
    case 460800: return 0x075F7000;
    case 921600: return 0x0EBED000;
    case 1000000: return 0x10000000;
    default: return 0;
    }
}

bool port_baud_supported(uint32_t baud)
{
    return baud >= LINK_BAUD && baud <= LINK_BAUD_MAX && rate_setting(baud) != 0;
}

/* What is still queued for another rate is dropped. */
static void start(uint32_t baud)
{
    UART_TASKS_STOPRX = 1;
    UART_TASKS_STOPTX = 1;
    UART_ENABLE = UART_ENABLE_DISABLED;
    UART_BAUDRATE = rate_setting(baud);
    UART_EVENTS_RXDRDY = 0;
    UART_EVENTS_TXDRDY = 0;
    sending = false;
    queued.tail = queued.head;
    UART_ENABLE = UART_ENABLE_ENABLED;
    UART_TASKS_STARTTX = 1;
    UART_TASKS_STARTRX = 1;
}

void uart_begin(void)
{
    P0_OUTSET = 1U << NRF52_TXD_PIN; /* high at rest, before it is an output and while the UART is off */
    P0_PIN_CNF(NRF52_TXD_PIN) = PIN_CNF_OUTPUT;
    P0_PIN_CNF(NRF52_RXD_PIN) = PIN_CNF_INPUT_PULLUP;
    UART_ENABLE = UART_ENABLE_DISABLED;
    UART_PSELTXD = NRF52_TXD_PIN;
    UART_PSELRXD = NRF52_RXD_PIN;
    UART_PSELRTS = UART_PSEL_DISCONNECTED;
    UART_PSELCTS = UART_PSEL_DISCONNECTED;
    UART_CONFIG = UART_CONFIG_8N1;
    UART_INTENSET = UART_INTEN_RXDRDY | UART_INTEN_TXDRDY;
    start(LINK_BAUD);
    NVIC_ISER0 = 1U << UART0_IRQ;
}

/// Bytes ///

/* What follows runs in the UART's interrupt, or in port_write while that holds the interrupt back: never in both. */

static inline void send_next(void)
{
    const uint32_t tail = queued.tail;
    if (tail == queued.head) {
        sending = false;
        return;
    }
    UART_TXD = queued.bytes[tail % RING_BYTES];
    queued.tail = tail + 1;
}

static inline void receive(void)
{
    if (UART_EVENTS_RXDRDY == 0) {
        return;
    }
    UART_EVENTS_RXDRDY = 0; /* before RXD is read: that brings up the next byte, with an event of its own */
    const uint8_t byte = (uint8_t)UART_RXD;
    const uint32_t head = received.head;
    if (head - received.tail < RING_BYTES) { /* otherwise it is lost, and the frame's CRC tells */
        received.bytes[head % RING_BYTES] = byte;
        received.head = head + 1;
    }
}

/* Sending comes first: the wire rests until the next byte is there, while six received ones may wait in the UART. */
static inline void serve(void)
{
    if (UART_EVENTS_TXDRDY != 0) {
        UART_EVENTS_TXDRDY = 0;
        send_next();
    }
    receive();
}

void uart_interrupt(void)
{
    serve();
}

/* Sends the first byte of a full ring once the one before has left; gives up after twice a byte's time at 115200. The
 * interrupt would come half a microsecond later, and a gap of that behind every byte is 5 % of the wire at 1,000,000. */
static inline void make_room(void)
{
    const uint32_t tail = queued.tail;
    const uint8_t byte = queued.bytes[tail % RING_BYTES];
    for (uint32_t patience = 1000; UART_EVENTS_TXDRDY == 0; patience--) {
        if (patience == 0) {
            return;
        }
        receive();
    }
    UART_EVENTS_TXDRDY = 0;
    UART_TXD = byte;
    queued.tail = tail + 1;
}

static inline void hold_interrupt(void)
{
    NVIC_ICER0 = 1U << UART0_IRQ;
    __asm volatile("dsb\n\tisb" ::: "memory");
}

static inline void allow_interrupt(void)
{
    NVIC_ISER0 = 1U << UART0_IRQ;
}

/// The port's own functions ///

bool uart_is_busy(void)
{
    return sending || received.head != received.tail;
}

int16_t port_read(void)
{
    const uint32_t tail = received.tail;
    if (tail == received.head) {
        return -1;
    }
    const uint8_t byte = received.bytes[tail % RING_BYTES];
    received.tail = tail + 1;
    return byte;
}

void port_write(const uint8_t *data, uint16_t length)
{
    const uint32_t since = port_milliseconds();
    hold_interrupt();
    while (length > 0 && port_milliseconds() - since <= PATIENCE_MS) {
        const uint32_t head = queued.head;
        if (head - queued.tail == RING_BYTES) {
            make_room();
            continue;
        }
        queued.bytes[head % RING_BYTES] = *data++;
        queued.head = head + 1;
        length--;
        serve();
        if (!sending) {
            sending = true;
            send_next();
        }
    }
    allow_interrupt();
}

void port_set_baud(uint32_t baud)
{
    const uint32_t since = port_milliseconds();
    while (sending && port_milliseconds() - since <= PATIENCE_MS) { /* until the last byte's TXDRDY: it has left */
    }
    start(baud != 0 ? baud : LINK_BAUD);
}
