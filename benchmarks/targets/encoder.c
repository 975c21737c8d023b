/* A node's own encoding of updates, firmware/node/encoding.c, of weights that the host puts there. */
#include "model.h"

float model_weights[MODEL_PARAMETERS], model_origin[MODEL_PARAMETERS];
