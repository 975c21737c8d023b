/* The registers of the nRF52832 and the nRF52840 that this port uses, under the names of Nordic's product
 * specifications; both chips have them at the same addresses. And what the parts of the port give each other. */
#ifndef NRF52_H
#define NRF52_H

#include <stdbool.h>
#include <stdint.h>

#define NRF52_REGISTER(address) (*(volatile uint32_t *)(address))

/// Cortex-M4: ARMv7-M architecture reference manual, B3 ///

#define NVIC_ISER0 NRF52_REGISTER(0xE000E100) /* interrupts 0 to 31 on */
#define NVIC_ICER0 NRF52_REGISTER(0xE000E180) /* and off */
#define NVIC_ICPR1 NRF52_REGISTER(0xE000E284) /* interrupts 32 to 63 no longer pending */
#define SCB_AIRCR NRF52_REGISTER(0xE000ED0C)
#define SCB_AIRCR_RESET 0x05FA0004U /* the key, and SYSRESETREQ */
#define SCB_CPACR NRF52_REGISTER(0xE000ED88)
#define SCB_CPACR_FPU 0x00F00000U /* coprocessors 10 and 11, full access */

enum { UART0_IRQ = 2, TIMER0_IRQ = 8, FPU_IRQ = 38 };

/// FICR and UICR: what the factory and the programmer wrote ///

#define FICR_DEVICEID0 NRF52_REGISTER(0x10000060)
#define FICR_DEVICEID1 NRF52_REGISTER(0x10000064)
#define FICR_INFO_PART NRF52_REGISTER(0x10000100)
#define FICR_INFO_PART_NRF52832 0x52832U
#define FICR_INFO_PART_NRF52840 0x52840U
#define UICR_APPROTECT NRF52_REGISTER(0x10001208)

/// CLOCK ///

#define CLOCK_TASKS_HFCLKSTART NRF52_REGISTER(0x40000000)
#define CLOCK_EVENTS_HFCLKSTARTED NRF52_REGISTER(0x40000100)
#define APPROTECT_DISABLE NRF52_REGISTER(0x40000558)

/// UART0: the one without EasyDMA ///

#define UART_TASKS_STARTRX NRF52_REGISTER(0x40002000)
#define UART_TASKS_STOPRX NRF52_REGISTER(0x40002004)
#define UART_TASKS_STARTTX NRF52_REGISTER(0x40002008)
#define UART_TASKS_STOPTX NRF52_REGISTER(0x4000200C)
#define UART_EVENTS_RXDRDY NRF52_REGISTER(0x40002108)
#define UART_EVENTS_TXDRDY NRF52_REGISTER(0x4000211C)
#define UART_INTENSET NRF52_REGISTER(0x40002304)
#define UART_INTEN_RXDRDY (1U << 2)
#define UART_INTEN_TXDRDY (1U << 7)
#define UART_ENABLE NRF52_REGISTER(0x40002500)
#define UART_ENABLE_DISABLED 0U
#define UART_ENABLE_ENABLED 4U
#define UART_PSELRTS NRF52_REGISTER(0x40002508)
#define UART_PSELTXD NRF52_REGISTER(0x4000250C)
#define UART_PSELCTS NRF52_REGISTER(0x40002510)
#define UART_PSELRXD NRF52_REGISTER(0x40002514)
#define UART_PSEL_DISCONNECTED 0xFFFFFFFFU
#define UART_RXD NRF52_REGISTER(0x40002518)
#define UART_TXD NRF52_REGISTER(0x4000251C)
#define UART_BAUDRATE NRF52_REGISTER(0x40002524)
#define UART_CONFIG NRF52_REGISTER(0x4000256C)
#define UART_CONFIG_8N1 0U

/// TIMER0 ///

#define TIMER0_TASKS_START NRF52_REGISTER(0x40008000)
#define TIMER0_EVENTS_COMPARE0 NRF52_REGISTER(0x40008140)
#define TIMER0_SHORTS NRF52_REGISTER(0x40008200)
#define TIMER0_SHORTS_COMPARE0_CLEAR (1U << 0)
#define TIMER0_INTENSET NRF52_REGISTER(0x40008304)
#define TIMER0_INTEN_COMPARE0 (1U << 16)
#define TIMER0_MODE NRF52_REGISTER(0x40008504)
#define TIMER0_MODE_TIMER 0U
#define TIMER0_BITMODE NRF52_REGISTER(0x40008508)
#define TIMER0_BITMODE_32 3U
#define TIMER0_PRESCALER NRF52_REGISTER(0x40008510) /* 16 MHz over 2 to this power */
#define TIMER0_CC0 NRF52_REGISTER(0x40008540)

/// RNG ///

#define RNG_TASKS_START NRF52_REGISTER(0x4000D000)
#define RNG_TASKS_STOP NRF52_REGISTER(0x4000D004)
#define RNG_EVENTS_VALRDY NRF52_REGISTER(0x4000D100)
#define RNG_VALUE NRF52_REGISTER(0x4000D508)

/// GPIO port 0 ///

#define P0_OUTSET NRF52_REGISTER(0x50000508)
#define P0_PIN_CNF(pin) NRF52_REGISTER(0x50000700U + 4U * (pin))
#define PIN_CNF_OUTPUT 0x3U       /* an output, its input buffer off */
#define PIN_CNF_INPUT_PULLUP 0xCU /* an input that rests high */

/// The parts of the port ///

void chip_begin(void); /* errata, clock, timer, boot id */
void chip_timer_interrupt(void);
void chip_idle(void); /* sleep until an interrupt, unless there is something to do */

void uart_begin(void); /* after chip_begin: it waits by the clock */
void uart_interrupt(void);
bool uart_is_busy(void); /* a byte waits to be read, or is on its way out */

int main(void);

#endif
