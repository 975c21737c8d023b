#include "targets.h"

#include "arrival.h"
#include "model.h"
#include "samples.h"
#include "wire.h"

#include <string.h>

#if MODEL_PROXY > 0

static struct {
    struct arrival arrival;
    bool here; /* taken: training may begin */
} targets;

static uint8_t *bytes(void)
{
    return &model_targets[0][0];
}

void targets_start(void)
{
    memset(&targets, 0, sizeof targets);
}

void targets_begin(const struct link_frame *frame, const struct message_begin *begin, uint8_t state)
{
    const bool same = arrival_is_of(&targets.arrival, begin);
    if (samples_proxies() == 0) {
        wire_error(frame->transfer, ERROR_UNSUPPORTED, begin->kind);
    } else if (begin->size != sizeof model_targets) {
        wire_error(frame->transfer, ERROR_WRONG_SIZE, sizeof model_targets);
    } else if (state < STATE_LOADED || (state > STATE_LOADED && !(same && targets.here))) {
        wire_error(frame->transfer, ERROR_WRONG_STATE, state); /* in use, so they may only be repeated */
    } else if (arrival_begin(&targets.arrival, frame, begin)) {
        targets.here = false;
    }
}

bool targets_owns(uint8_t transfer)
{
    return arrival_owns(&targets.arrival, transfer);
}

void targets_release(uint8_t transfer)
{
    if (targets_owns(transfer)) {
        targets.arrival.in.id = 0; /* which no request has */
    }
}

void targets_data(const struct link_frame *frame)
{
    arrival_data(&targets.arrival, frame, bytes());
}

bool targets_commit(const struct link_frame *frame, const uint8_t *mac, const struct message_setup *setup)
{
    const struct authentication_blob blob = {bytes(), mac, setup, TRANSFER_TARGETS};
    targets.here = targets.here || arrival_commit(&targets.arrival, frame, &blob);
    return targets.here;
}

bool targets_are_here(void)
{
    return targets.here;
}

bool targets_sum_some(size_t most)
{
    return targets.arrival.in.open && arrival_sum(&targets.arrival, bytes(), most);
}

uint32_t targets_crc(void)
{
    return targets.here ? targets.arrival.crc : 0;
}

#endif
