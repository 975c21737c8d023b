/* The Arduino Nano 33 BLE's accelerometer, and a push button between D2 and ground.
 *
 * Rev2 of the board has another chip: Arduino_BMI270_BMM150 drives it by the same calls, at 100 Hz instead of 119. */
#include <Arduino.h>
#include <Arduino_LSM9DS1.h>

#include <string.h>

extern "C" {
#include "gestures.h"
#include "model.h"
}
#include "node/sensor.h"

static_assert(MODEL_FEATURES == GESTURES_BYTES, "the model's input is not a window: expected keras.Input((64, 3))");
static_assert(MODEL_CLASSES == GESTURES_KINDS, "the model tells apart more or fewer gestures than the button labels");

static const uint8_t button = 2;
static struct gestures gestures;
static bool found; /* the chip answers */

void sensor_begin(void)
{
    pinMode(button, INPUT_PULLUP);
    pinMode(LED_BUILTIN, OUTPUT);
    found = IMU.begin() != 0;
    gestures_start(&gestures, millis());
}

/* One look at the button and the chip, some hundred microseconds of I2C at most; it never waits for either. */
bool sensor_capture(uint8_t *features, uint16_t *label)
{
    const uint32_t now = millis();
    gestures_button(&gestures, now, digitalRead(button) == LOW);
    digitalWrite(LED_BUILTIN, !found || gestures_led(&gestures, now) ? HIGH : LOW); /* no chip: lit for good */
    float g[GESTURES_AXES];
    if (!gestures_due(&gestures, now) || !IMU.accelerationAvailable() || !IMU.readAcceleration(g[0], g[1], g[2])) {
        return false;
    }
    if (!gestures_take(&gestures, now, g)) {
        return false;
    }
    memcpy(features, gestures.window, GESTURES_BYTES);
    *label = gestures.label;
    return true;
}
