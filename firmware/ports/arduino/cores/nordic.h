/* What the three cores for Nordic's chips share: who the chip is, and its generator of randomness. */
#ifndef NORDIC_H
#define NORDIC_H

static inline void nordic_identity(uint8_t id[8])
{
    const uint32_t own[2] = {NRF_FICR->DEVICEID[0], NRF_FICR->DEVICEID[1]};
    memcpy(id, own, 8);
}

/* Some 30 us a byte. No core uses the generator before a radio is turned on, which nobody does here. */
static inline uint32_t nordic_boot_id()
{
    static uint32_t number;
    if (number != 0) {
        return number;
    }
    NRF_RNG->TASKS_START = 1;
    for (uint8_t i = 0; i < 4; i++) {
        NRF_RNG->EVENTS_VALRDY = 0;
        while (NRF_RNG->EVENTS_VALRDY == 0) {
        }
        number = number << 8 | (NRF_RNG->VALUE & 0xFFU);
    }
    NRF_RNG->TASKS_STOP = 1;
    number |= 1U;
    return number;
}

#endif
