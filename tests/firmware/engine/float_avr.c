/* Multiply-adds for the emulated ATmega. step_run(0): y += a[0] × x; 1: lanes y += a · x; 2: y becomes byte × a + x,
 * the byte being 0 to 7 in the first half of the rows, anything in the rest. */
#include "engine/inner.h"

#ifndef ROWS
#define ROWS 96
#endif
#define LENGTH 6

struct row {
    float a[LENGTH], x[LENGTH], y[LENGTH];
};

/* Read, written and called from outside the program, which link-time optimisation must not think away. */
__attribute__((used)) struct row model_weights[ROWS];
__attribute__((used, noinline, noclone)) void step_run(uint8_t call);

static void dot(struct row *row)
{
    struct engine_lanes lanes;
    memcpy(lanes.at, row->y, sizeof lanes);
    engine_dot(&lanes, row->a, row->x, LENGTH);
    memcpy(row->y, lanes.at, sizeof lanes);
}

static void samples(struct row *row, uint16_t place)
{
    for (uint8_t i = 0; i < LENGTH; i++, place++) {
        const uint8_t byte = (uint8_t)(place < ROWS * LENGTH / 2 ? place & 7 : place);
        row->y[i] = engine_avr_sample(byte, row->a[i], row->x[i]);
    }
}

void step_run(uint8_t call)
{
    for (uint8_t i = 0; i < ROWS; i++) {
        struct row *row = &model_weights[i];
        if (call == 0) {
            engine_axpy(row->y, row->a[0], row->x, LENGTH);
        } else if (call == 1) {
            dot(row);
        } else {
            samples(row, (uint16_t)(i * LENGTH));
        }
    }
}

int main(void)
{
    step_run(0);
    return 0;
}
