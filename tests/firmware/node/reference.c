/* The generated model alone, without the node: what tests/firmware/node/test_round.py trains by itself. */
#define MODEL_IMPLEMENTATION
#include "model.h"
