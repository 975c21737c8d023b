/* The native port's own parts: a shard of samples, a key, and a wire that is a pty or a TCP socket. */
#ifndef NATIVE_H
#define NATIVE_H

#include <stdbool.h>
#include <stdint.h>

/* One sentence on stderr, exit code 2. */
void native_fail(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

void native_open_shard(const char *path);
void native_open_key(const char *path);

/* Each prints the line `PORT <name>` that tells the coordinator where to connect. */
void native_open_pty(void);
void native_open_tcp(uint16_t port); /* 0: any free one */
void native_wait(void);              /* sleep until bytes or a client may have come, at most a moment */

void native_set_identity(uint64_t uid);

#endif
