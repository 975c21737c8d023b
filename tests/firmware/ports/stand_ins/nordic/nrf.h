/* Nordic's nrf52.h and nrf52840.h, what is used of them. The registers lie wherever the program puts them. */
#ifndef STAND_IN_NRF_H
#define STAND_IN_NRF_H

#include <stdint.h>

typedef struct {
    volatile const uint32_t DEVICEID[2];
} NRF_FICR_Type;

#ifdef STAND_IN_RUNS
struct stand_in_event { /* it has happened again by the time somebody looks */
    void operator=(uint32_t) {}
    operator uint32_t() const { return 1; }
};
#else
typedef volatile uint32_t stand_in_event;
#endif

typedef struct {
    volatile uint32_t TASKS_START;
    volatile uint32_t TASKS_STOP;
    stand_in_event EVENTS_VALRDY;
    volatile const uint32_t VALUE;
} NRF_RNG_Type;

extern NRF_FICR_Type stand_in_ficr;
extern NRF_RNG_Type stand_in_rng;
#define NRF_FICR (&stand_in_ficr)
#define NRF_RNG (&stand_in_rng)

#endif
