/* A blob that arrives, the weights, soft targets or a streamed sample: its BEGIN, DATA and COMMIT, and the CRC-32 that says whether it
 * is what the host sent. `bytes` are where it goes, as many as its BEGIN announced. */
#ifndef ARRIVAL_H
#define ARRIVAL_H

#include "authentication.h"
#include "link/link.h"
#include "protocol.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct arrival {
    struct link_incoming in;
    uint32_t crc; /* of the first `summed` bytes */
    size_t summed;
    bool spoiled; /* complete and wrong: it must begin anew */
};

/* Whether it is the blob under way, or the one that came. */
bool arrival_is_of(const struct arrival *arrival, const struct message_begin *begin);
/* BEGIN, answered. True: it is another blob than the one under way, whose bytes are lost from now on. */
bool arrival_begin(struct arrival *arrival, const struct link_frame *frame, const struct message_begin *begin);
/* Whether DATA and COMMIT of this transfer number are about it. */
bool arrival_owns(const struct arrival *arrival, uint8_t transfer);
/* DATA, answered. Once complete nothing is accepted any more, so a blob in use is never written to. */
void arrival_data(struct arrival *arrival, const struct link_frame *frame, uint8_t *bytes);
/* Sum at most so many bytes more of what has come without a gap; false if there are none. */
bool arrival_sum(struct arrival *arrival, const uint8_t *bytes, size_t most);
/* COMMIT of this transfer. False: some of it is missing, or it is not what BEGIN said or not the host's, and that is answered. */
bool arrival_commit(struct arrival *arrival, const struct link_frame *frame, const struct authentication_blob *blob);

#endif
