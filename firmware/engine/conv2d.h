/* What the forms of a convolution share. Private to firmware/engine. */
#ifndef ENGINE_CONV2D_H
#define ENGINE_CONV2D_H

#include "window.h"

/* The part of the input that output pixel (out_y, out_x) sees. */
static ENGINE_INLINE struct engine_patch conv2d_patch(const struct engine_window *s, struct engine_span rows,
                                                      uint16_t out_y, uint16_t out_x)
{
    const struct engine_span columns = engine_tap_columns(s, out_x);
    const engine_offset tap = (engine_offset)s->weight_in * s->weight_out;
    return engine_joined((struct engine_patch){
        .in = engine_in_offset(s, out_y, out_x, rows.first, columns.first),
        .in_row = (engine_offset)s->in_width * s->in_channels,
        .weight = ((engine_offset)rows.first * s->kernel_width + columns.first) * tap,
        .weight_row = s->kernel_width * tap,
        .weight_column = tap,
        .rows = rows.count,
        .columns = columns.count,
        .channels = s->in_channels,
        .weight_out = s->weight_out,
    });
}

/* The outputs that one input pixel fed, and the weights between them. Seen from the input, the next output to the
 * right or below is reached through a kernel tap one stride before. */
struct fan {
    engine_offset out, out_row; /* first output element; elements from one output row to the next */
    engine_offset weight, weight_row, weight_column; /* of channel 0; weights to go back at each step */
    uint16_t rows, columns;
};

static ENGINE_INLINE struct fan conv2d_fan(const struct engine_window *s, struct engine_span rows, uint16_t y,
                                           uint16_t x)
{
    const struct engine_span columns = engine_fed_columns(s, x);
    const engine_offset tap = (engine_offset)s->weight_in * s->weight_out;
    return (struct fan){
        .out = ((engine_offset)rows.first * s->out_width + columns.first) * s->out_channels,
        .out_row = (engine_offset)s->out_width * s->out_channels,
        .weight = columns.count == 0 || rows.count == 0 ? 0 : engine_tap(s, y, x, rows.first, columns.first) * tap,
        .weight_row = (engine_offset)s->stride_height * s->kernel_width * tap,
        .weight_column = s->stride_width * tap,
        .rows = rows.count,
        .columns = columns.count,
    };
}

#endif
