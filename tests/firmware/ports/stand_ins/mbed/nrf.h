#include "../nordic/nrf.h"
