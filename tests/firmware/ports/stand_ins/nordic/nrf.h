/* Nordic's nrf52.h and nrf52840.h, what is used of them. The registers lie wherever the program puts them. */
#ifndef STAND_IN_NRF_H
#define STAND_IN_NRF_H

#include <stdint.h>

typedef struct {
    volatile const uint32_t DEVICEID[2];
} NRF_FICR_Type;

typedef struct {
    volatile uint32_t TASKS_START;
    volatile uint32_t TASKS_STOP;
    volatile uint32_t EVENTS_VALRDY;
    volatile const uint32_t VALUE;
} NRF_RNG_Type;

extern NRF_FICR_Type stand_in_ficr;
extern NRF_RNG_Type stand_in_rng;
#define NRF_FICR (&stand_in_ficr)
#define NRF_RNG (&stand_in_rng)

#endif
