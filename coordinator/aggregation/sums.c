/* Sums of updates as they come off the wire. An element's sum takes the nodes in their order, in double precision, so
 * that its bits do not depend on how many are added at a time: NODES are, because that spares reading and writing the
 * sums between them. The caller defines NODES and Q8_BLOCK. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define LANES 8u

/* Returns `count` elements of an update from `begin` on, a multiple of Q8_BLOCK: where they lie or, decoded, `values`. */
static const float *block(const uint8_t *update, bool q8, size_t begin, size_t count, float *restrict values)
{
    float scale;
    if (!q8) {
        return (const float *)(const void *)(update + begin * sizeof scale);
    }
    const uint8_t *const at = update + begin / Q8_BLOCK * (sizeof scale + Q8_BLOCK);
    const int8_t *restrict const levels = (const int8_t *)(at + sizeof scale);
    memcpy(&scale, at, sizeof scale);
    for (size_t i = 0; i < count; i++) {
        values[i] = (float)levels[i] * scale;
    }
    return values;
}

static size_t block_size(size_t begin, size_t end)
{
    return end - begin < Q8_BLOCK ? end - begin : Q8_BLOCK;
}

static void add(double *restrict sums, const float *const values[NODES], size_t begin, size_t end,
                const double weights[NODES])
{
    for (size_t i = begin; i < end; i++) {
        double sum = sums[i];
        for (size_t node = 0; node < NODES; node++) {
            sum += weights[node] * (double)values[node][i];
        }
        sums[i] = sum;
    }
}

/* Adds to each of `count` sums weight * element of every update; NULL adds nothing. From `plain` on element i belongs to
 * class (i - plain) % classes. weights: [1 + classes][NODES], the first row for what is of no class. Returns whether all
 * sums are finite, as they are if all elements are. */
bool sums_add(double *sums, size_t plain, size_t count, size_t classes, const uint8_t *const updates[NODES],
              const bool q8[NODES], const double *weights);
bool sums_add(double *sums, size_t plain, size_t count, size_t classes, const uint8_t *const updates[NODES],
              const bool q8[NODES], const double *weights)
{
    static const float nothing[Q8_BLOCK];
    float decoded[NODES][Q8_BLOCK];
    const float *values[NODES];
    uint64_t broken = 0;
    for (size_t begin = 0; begin < count; begin += Q8_BLOCK) {
        const size_t size = block_size(begin, count);
        const size_t first = plain < begin ? 0 : block_size(begin, plain) < size ? block_size(begin, plain) : size;
        for (size_t node = 0; node < NODES; node++) {
            values[node] = updates[node] == NULL ? nothing : block(updates[node], q8[node], begin, size, decoded[node]);
        }
        add(sums + begin, values, 0, first, weights);
        for (size_t i = first; i < size; i++) {
            add(sums + begin, values, i, i + 1, weights + (1 + (begin + i - plain) % classes) * NODES);
        }
        for (size_t i = begin; i < begin + size; i++) {
            broken |= sums[i] - sums[i] != 0.0;
        }
    }
    return broken == 0;
}

/* Returns the sum of an update's squares; finite if and only if all its elements are. */
double sums_squares(const uint8_t *update, bool q8, size_t count);
double sums_squares(const uint8_t *update, bool q8, size_t count)
{
    float decoded[Q8_BLOCK];
    double lanes[LANES] = {0.0};
    double sum = 0.0;
    for (size_t begin = 0; begin < count; begin += Q8_BLOCK) {
        const size_t size = block_size(begin, count);
        const float *const values = block(update, q8, begin, size, decoded);
        size_t i = 0;
        for (; i + LANES <= size; i += LANES) {
            for (size_t lane = 0; lane < LANES; lane++) {
                lanes[lane] += (double)values[i + lane] * (double)values[i + lane];
            }
        }
        for (; i < size; i++) {
            sum += (double)values[i] * (double)values[i];
        }
    }
    for (size_t lane = 0; lane < LANES; lane++) {
        sum += lanes[lane];
    }
    return sum;
}

/* Moves `size` weights by sum / count, where the count is not 0; `counts` is one for all, or one for each. */
void sums_move(float *restrict weights, const double *restrict sums, const double *restrict counts, bool each,
               size_t size);
void sums_move(float *restrict weights, const double *restrict sums, const double *restrict counts, bool each,
               size_t size)
{
    for (size_t i = 0; i < size; i++) {
        const double count = each ? counts[i] : counts[0];
        const float moved = (float)((double)weights[i] + sums[i] / (count > 0.0 ? count : 1.0));
        weights[i] = count > 0.0 ? moved : weights[i];
    }
}
