/* Labelled windows of acceleration, recorded by hand: what the button and the LED mean, when the accelerometer is read,
 * and how readings become bytes. Nothing here knows Arduino; sensor.cpp reads the pins and the chip. */
#ifndef GESTURES_H
#define GESTURES_H

#include <stdbool.h>
#include <stdint.h>

#define GESTURES_KINDS 3   /* 0 circle, 1 shake, 2 lift */
#define GESTURES_STEPS 64U /* readings in a window */
#define GESTURES_AXES 3U
#define GESTURES_BYTES (GESTURES_STEPS * GESTURES_AXES)
#define GESTURES_STEP_MS 20U   /* between two readings: 50 Hz, so a window lasts 1.28 s */
#define GESTURES_RANGE 4.0f    /* g: byte 0 is -4 g, byte 255 +4 g */
#define GESTURES_BOUNCE_MS 20U /* what the button says counts once it has said it for so long */
#define GESTURES_HOLD_MS 400U  /* pressed for so long, it asks for a window */
#define GESTURES_BLINK_MS 150U /* light and dark of a blink, each */

enum gestures_state {
    GESTURES_WAITING,
    GESTURES_PRESSED,   /* a short press steps the label, a long one begins a window */
    GESTURES_RECORDING,
    GESTURES_SPENT      /* the window is full or dropped; waits for the button to be let go */
};

struct gestures {
    enum gestures_state state;
    bool pressed;     /* what the button said last */
    uint32_t since;   /* when it began to say so; all times are in ms, and wrap */
    uint32_t blinked; /* when the label was last changed, and is blinked */
    uint32_t begun;   /* when the window began */
    uint16_t label, taken;
    uint8_t window[GESTURES_BYTES]; /* x, y, z; x, y, z; … */
};

void gestures_start(struct gestures *gestures, uint32_t now);
/* Take note of the button. */
void gestures_button(struct gestures *gestures, uint32_t now, bool pressed);
/* A window is open and its next reading is due. */
bool gestures_due(const struct gestures *gestures, uint32_t now);
/* Take the reading that is due, in g; true if the window is now full. A reading that comes a whole step late drops the
 * window: its rhythm would be wrong. */
bool gestures_take(struct gestures *gestures, uint32_t now, const float acceleration[GESTURES_AXES]);
/* The LED: on while a window is open; otherwise it blinks a new label, 1 to GESTURES_KINDS times. */
bool gestures_led(const struct gestures *gestures, uint32_t now);

#endif
