/* Answers a byte with the next one; some letters make it do something else. */
#include <avr/interrupt.h>
#include <avr/io.h>
#include <avr/sleep.h>
#include <string.h>

static volatile uint8_t received, waits;

ISR(USART_RX_vect)
{
    received = UDR0;
    waits = 1;
}

static __attribute__((noinline)) void dig(void)
{
    uint8_t deep[500];
    memset(deep, 1, sizeof deep);
    __asm volatile("" : : "r"(deep) : "memory"); /* somebody might read it */
}

int main(void)
{
    UBRR0 = 3; /* 250000 baud */
    UCSR0B = _BV(RXCIE0) | _BV(RXEN0) | _BV(TXEN0);
    for (;;) {
        cli();
        while (!waits) {
            sleep_enable();
            sei();
            sleep_cpu();
            cli();
        }
        waits = 0;
        const uint8_t byte = received;
        if (byte == 'h') {
            for (volatile uint16_t i = 0; i < 2000; i++) { /* hears nothing meanwhile */
            }
        }
        sei();
        if (byte == 'd') {
            dig();
        }
        while (byte == 'b') {
        }
        UDR0 = (uint8_t)(byte + 1);
    }
}
