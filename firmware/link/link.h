/* The link: frames and transfers on any byte stream. Depends on nothing.
 *
 * A frame is COBS(type u8 | transfer u8 | chunk u16 | payload | CRC-16) 0x00, at most 254 bytes before COBS, so that
 * COBS always costs one byte and a frame 8 bytes on top of its payload. CRC-16 is XMODEM's polynomial 0x1021 started
 * at 0xFFFF, over everything before it; integers are little-endian, the CRC too. Version: PROTOCOL_VERSION. */
#ifndef LINK_H
#define LINK_H

#include <stdbool.h>
#include <stdint.h>

/* Largest payload this node accepts and sends, 72 to 248 bytes; costs LINK_MTU + 7 bytes of RAM, and LINK_MTU + 8
 * where the model's arena is smaller than that. */
#ifndef LINK_MTU
#define LINK_MTU 72
#endif
/* Chunks that this node keeps in flight, 1 to 32. What comes here may run 32 ahead of the first one missing: it needs
 * no room but the map's. */
#ifndef LINK_WINDOW
#define LINK_WINDOW 8
#endif

#define LINK_OVERHEAD 8
#define LINK_FRAME_MAX (LINK_MTU + LINK_OVERHEAD)
#define LINK_PAYLOAD_AT 5 /* in an encoded frame: behind the COBS code and the header */

struct link_frame {
    uint8_t type, transfer;
    uint16_t chunk;
    const uint8_t *payload; /* inside the decoder's buffer: valid until the next byte is fed */
    uint8_t length;
};

/// Frames ///

struct link_decoder {
    uint8_t buffer[LINK_MTU + 7]; /* as it came; once whole, decoded where it lies */
    uint8_t length;               /* bytes so far */
    bool bad;                     /* this frame is already lost; wait for the delimiter */
    uint16_t rejected;            /* frames dropped: too long, bad COBS or bad CRC; wraps */
};

void link_decoder_reset(struct link_decoder *decoder);
/* Feed one byte; true when a whole, valid frame is in `frame`. */
bool link_decode(struct link_decoder *decoder, uint8_t byte, struct link_frame *frame);
/* Make a frame of the `length` <= LINK_MTU bytes at out + LINK_PAYLOAD_AT, in place, in out[LINK_FRAME_MAX]; returns
 * the bytes to send, the delimiter included. */
uint16_t link_encode(uint8_t *out, uint8_t type, uint8_t transfer, uint16_t chunk, uint8_t length);

/// Transfers: a blob in chunks of `payload` bytes, as BEGIN or FETCH says, the last one shorter ///

struct link_incoming {
    uint32_t size, crc; /* as announced */
    uint16_t next;      /* first chunk still missing */
    uint32_t map;       /* bit i: chunk next + 1 + i is here */
    uint8_t id, payload;
    bool open;
};

/* A bit for each chunk in flight; wider is slower on an 8-bit chip. */
#if LINK_WINDOW > 16
typedef uint32_t link_flight;
#else
typedef uint16_t link_flight;
#endif

struct link_outgoing {
    uint32_t size;
    uint16_t next;   /* first chunk not acknowledged */
    uint16_t fresh;  /* first chunk never sent */
    link_flight due; /* bit i: chunk next + i must be sent (again) */
    uint8_t sent[LINK_WINDOW]; /* serial of the last sending of chunk c, at c % LINK_WINDOW */
    uint8_t serial; /* counts chunks sent */
    uint8_t id, payload;
    bool open;
};

/* False, and nothing changes, if payload is 0 or above LINK_MTU, or the size needs more than 65535 chunks. */
bool link_incoming_begin(struct link_incoming *in, uint8_t id, uint8_t payload, uint32_t size, uint32_t crc);
/* Go on with the blob that is under way, as another transfer, perhaps in chunks of another length: what has come without
 * a gap stays, as whole chunks of the new length. False, and nothing changes, as above. */
bool link_incoming_resume(struct link_incoming *in, uint8_t id, uint8_t payload);
/* Where a chunk's payload belongs: its offset, or UINT32_MAX if it is not wanted (duplicate, out of window, wrong
 * length). Marks it as received. */
uint32_t link_incoming_accept(struct link_incoming *in, uint16_t chunk, uint8_t length);
/* Bytes that have come without a gap. */
uint32_t link_incoming_here(const struct link_incoming *in);
bool link_incoming_complete(const struct link_incoming *in);

/* From chunk `first` on. False as above, or if there is no such chunk, except one past the last. */
bool link_outgoing_begin(struct link_outgoing *out, uint8_t id, uint8_t payload, uint32_t size, uint16_t first);
/* An acknowledgement arrived. A chunk in flight is lost if one sent after it has arrived (the wire keeps order);
 * `stalled` says that nothing has come for a while: everything in flight is due again. `next` may lie past all that
 * was sent: a transfer taken up again. What makes no sense, or is out of date, changes nothing. */
void link_outgoing_acknowledge(struct link_outgoing *out, uint16_t next, uint32_t map, bool stalled);
/* The next chunk to send and its place: false if there is none now. */
bool link_outgoing_next(struct link_outgoing *out, uint16_t *chunk, uint32_t *offset, uint8_t *length);

/// Checksums ///

uint16_t link_crc16(uint16_t crc, const uint8_t *data, uint16_t length); /* start with 0xFFFF */
uint32_t link_crc32(uint32_t crc, const uint8_t *data, uint32_t length); /* zlib's: start with 0 */

#endif
