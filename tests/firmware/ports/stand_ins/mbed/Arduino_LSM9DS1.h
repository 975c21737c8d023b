/* Arduino's library for the accelerometer of the Nano 33 BLE (Arduino_LSM9DS1 1.1.1): declarations only. */
#ifndef STAND_IN_LSM9DS1_H
#define STAND_IN_LSM9DS1_H

#include <Arduino.h>

class LSM9DS1Class {
public:
    virtual ~LSM9DS1Class();
    int begin(); /* 1, or 0 if the chip does not answer */
    void end();
    virtual int readAcceleration(float &x, float &y, float &z); /* in g; 1, or 0 and NaN */
    virtual int accelerationAvailable();                        /* there is a reading that has not been read */
    virtual float accelerationSampleRate();
};

extern LSM9DS1Class IMU_LSM9DS1;
#undef IMU
#define IMU IMU_LSM9DS1

#endif
