/* The board's state machine: hello, receive, train, send. One instance, no heap; every handler is idempotent, because
 * the host repeats what it gets no answer to. */
#ifndef NODE_H
#define NODE_H

#include <stdbool.h>

void node_start(void);
/* Handle what has arrived, then train at most one sample; true if there was something to do. Call it for ever. */
bool node_poll(void);

#endif
