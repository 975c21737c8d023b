#include "world.h"

#include <algorithm>

World world;

static void arrive()
{
    while (world.listens && !world.sent.empty()) {
        if (world.in.size() < world.room_in) {
            world.in.push_back(world.sent.front());
        } else if (world.loses) {
            world.lost++;
        } else {
            return;
        }
        world.sent.pop_front();
        return; /* one in the time of a byte */
    }
}

static void leave()
{
    if (world.leaves > 0 && world.reads && !(world.patient && !world.sent.empty())) {
        world.read.push_back(world.out.front());
        world.out.pop_front();
        world.leaves--;
    }
}

void world_pass(uint64_t us)
{
    for (uint64_t bytes = (world.now_us + us) / BYTE_US - world.now_us / BYTE_US; bytes > 0; bytes--) {
        arrive();
        leave();
        if (world.sent.empty() && world.leaves == 0) {
            break;
        }
    }
    world.now_us += us;
    world.longest_us = std::max(world.longest_us, world.now_us - world.rested_us);
}

bool world_wait(uint64_t &since)
{
    since = since != 0 ? since : world.now_us + 1;
    world_pass(100);
    world.hung = world.hung || world.now_us - since > HANG_US;
    return !world.hung;
}

int world_take()
{
    world_pass(1);
    if (world.in.empty()) {
        return -1;
    }
    const uint8_t byte = world.in.front();
    world.in.pop_front();
    return byte;
}

size_t world_enqueue(const uint8_t *data, size_t length, size_t limit)
{
    const size_t taken = std::min(length, limit - world.out.size());
    world.out.insert(world.out.end(), data, data + taken);
    return taken;
}

void world_sleep(uint64_t us)
{
    world_pass(us);
    world.rested_us = world.now_us;
}

/// What the test calls ///

extern "C" {

void world_host(bool reads, bool patient, bool dtr)
{
    world.reads = reads;
    world.patient = patient;
    world.dtr = dtr;
}

void world_send(const uint8_t *bytes, uint32_t count)
{
    world.sent.insert(world.sent.end(), bytes, bytes + count);
}

uint32_t world_receive(uint8_t *bytes, uint32_t room)
{
    const uint32_t count = (uint32_t)std::min<size_t>(world.read.size(), room);
    std::copy_n(world.read.begin(), count, bytes);
    world.read.erase(world.read.begin(), world.read.begin() + count);
    return count;
}

void world_advance(uint32_t us)
{
    world_pass(us);
}

/* lost, hung, begins, ends, rate, yields, longest ms without rest, ms since boot, bytes that still come */
void world_measure(uint32_t values[9])
{
    const uint32_t now[9] = {
        world.lost, world.hung, world.begins, world.ends, world.rate, world.yields,
        (uint32_t)(world.longest_us / 1000), (uint32_t)(world.now_us / 1000), (uint32_t)world.sent.size(),
    };
    std::copy_n(now, 9, values);
}

}
