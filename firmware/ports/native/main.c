/* The native twin: the board's firmware as a program. Its wire is a pty (or a TCP port), its samples a file. */
#define _DEFAULT_SOURCE
#include "native.h"

#include "model.h"
#include "node/authentication.h"
#include "node/node.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#if !NODE_KEYED
#error "NODE_KEYED must be 1: a twin is told at its start whether it has a key"
#endif

static const char help[] =
    "Usage: program --shard FILE [--uid HEX16] [--key FILE] [--tcp PORT]\n"
    "\n"
    "Runs the firmware of board " MODEL_BOARD " (tier " MODEL_TIER ") until it is terminated. Prints where to connect\n"
    "as its first line: PORT /dev/pts/N, or PORT socket://127.0.0.1:N with --tcp.\n"
    "\n"
    "  --shard FILE  its training samples, or what its sensor records; not needed where the host streams them\n"
    "  --uid HEX16   its unique id, 16 hexadecimal digits (default: made from the shard's path)\n"
    "  --key FILE    its key, 64 hexadecimal digits: who uses it must have it too (default: anybody may)\n"
    "  --tcp PORT    listen on this port of 127.0.0.1 instead of opening a pty; 0 takes a free one\n";

static uint64_t parse_uid(const char *text)
{
    if (strlen(text) != 16 || strspn(text, "0123456789abcdefABCDEF") != 16) {
        native_fail("--uid: found '%s', expected 16 hexadecimal digits, such as --uid 00000000000000a1", text);
    }
    return strtoull(text, NULL, 16);
}

static uint16_t parse_port(const char *text)
{
    char *end;
    errno = 0;
    const unsigned long port = strtoul(text, &end, 10);
    if (text[strspn(text, "0123456789")] != '\0' || end == text || errno != 0 || port > UINT16_MAX) {
        native_fail("--tcp: found '%s', expected a port number, 0 to 65535", text);
    }
    return (uint16_t)port;
}

static uint64_t uid_from(const char *path)
{
    uint64_t hash = 0xCBF29CE484222325U; /* FNV-1a */
    for (; *path != '\0'; path++) {
        hash = (hash ^ (uint8_t)*path) * 0x100000001B3U;
    }
    return hash;
}

static const char *value_of(char **argument)
{
    if (argument[1] == NULL) {
        native_fail("%s: expected a value after it; see --help", argument[0]);
    }
    return argument[1];
}

static void die_with_parent(void)
{
#ifdef __linux__
    prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
}

int main(int count, char **arguments)
{
    const char *shard = NULL, *uid = NULL, *key = NULL, *tcp = NULL;
    (void)count;
    for (char **argument = arguments + 1; *argument != NULL; argument += 2) {
        if (strcmp(*argument, "--help") == 0) {
            fputs(help, stdout);
            return 0;
        }
        if (strcmp(*argument, "--shard") == 0) {
            shard = value_of(argument);
        } else if (strcmp(*argument, "--uid") == 0) {
            uid = value_of(argument);
        } else if (strcmp(*argument, "--key") == 0) {
            key = value_of(argument);
        } else if (strcmp(*argument, "--tcp") == 0) {
            tcp = value_of(argument);
        } else {
            native_fail("Unknown argument '%s'; see --help", *argument);
        }
    }
    if (shard == NULL && !MODEL_SOURCE_STREAM) {
        native_fail("No samples: expected --shard FILE; see --help");
    }
    native_set_identity(uid != NULL ? parse_uid(uid) : uid_from(shard != NULL ? shard : MODEL_BOARD));
    const uint16_t port = tcp != NULL ? parse_port(tcp) : 0;
    die_with_parent();
    signal(SIGPIPE, SIG_IGN); /* a client that leaves is an error code, not an end */
    if (shard != NULL) {
        native_open_shard(shard);
    }
    if (key != NULL) {
        native_open_key(key);
    }
    if (tcp != NULL) {
        native_open_tcp(port);
    } else {
        native_open_pty();
    }
    node_start();
    for (;;) {
        if (!node_poll()) {
            native_wait();
        }
    }
}
