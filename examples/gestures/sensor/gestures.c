#include "gestures.h"

#include <string.h>

void gestures_start(struct gestures *gestures, uint32_t now)
{
    memset(gestures, 0, sizeof *gestures);
    gestures->state = GESTURES_WAITING;
    gestures->since = now;
    gestures->blinked = now;
}

static void begin(struct gestures *gestures, uint32_t now)
{
    gestures->state = GESTURES_RECORDING;
    gestures->begun = now;
    gestures->taken = 0;
}

static void next_label(struct gestures *gestures, uint32_t now)
{
    gestures->state = GESTURES_WAITING;
    gestures->label = (uint16_t)((gestures->label + 1) % GESTURES_KINDS);
    gestures->blinked = now;
}

void gestures_button(struct gestures *gestures, uint32_t now, bool pressed)
{
    if (pressed != gestures->pressed) {
        gestures->pressed = pressed;
        gestures->since = now;
    }
    const uint32_t held = now - gestures->since;
    if (held < GESTURES_BOUNCE_MS) {
        return;
    }
    switch (gestures->state) {
    case GESTURES_WAITING:
        if (pressed) {
            gestures->state = GESTURES_PRESSED;
        }
        break;
    case GESTURES_PRESSED:
        if (!pressed) {
            next_label(gestures, now);
        } else if (held >= GESTURES_HOLD_MS) {
            begin(gestures, now);
        }
        break;
    case GESTURES_RECORDING: /* let go early: the hand has thought better of it */
    case GESTURES_SPENT:
        if (!pressed) {
            gestures->state = GESTURES_WAITING;
        }
        break;
    }
}

static uint32_t due(const struct gestures *gestures)
{
    return gestures->begun + gestures->taken * GESTURES_STEP_MS;
}

bool gestures_due(const struct gestures *gestures, uint32_t now)
{
    return gestures->state == GESTURES_RECORDING && (int32_t)(now - due(gestures)) >= 0;
}

/* Rounded to the nearest byte. What is no number becomes 0. */
static uint8_t quantised(float acceleration)
{
    const float byte = (acceleration + GESTURES_RANGE) * (255.0f / (2.0f * GESTURES_RANGE)) + 0.5f;
    if (!(byte > 0.0f)) {
        return 0;
    }
    return byte < 255.0f ? (uint8_t)byte : 255;
}

bool gestures_take(struct gestures *gestures, uint32_t now, const float acceleration[GESTURES_AXES])
{
    if (!gestures_due(gestures, now)) {
        return false;
    }
    if (now - due(gestures) >= GESTURES_STEP_MS) {
        gestures->state = GESTURES_SPENT;
        return false;
    }
    for (uint8_t axis = 0; axis < GESTURES_AXES; axis++) {
        gestures->window[gestures->taken * GESTURES_AXES + axis] = quantised(acceleration[axis]);
    }
    gestures->taken++;
    if (gestures->taken < GESTURES_STEPS) {
        return false;
    }
    gestures->state = GESTURES_SPENT;
    return true;
}

bool gestures_led(const struct gestures *gestures, uint32_t now)
{
    if (gestures->state == GESTURES_RECORDING) {
        return true;
    }
    const uint32_t blink = (now - gestures->blinked) / GESTURES_BLINK_MS;
    return blink < 2U * (gestures->label + 1U) && blink % 2U == 0;
}
