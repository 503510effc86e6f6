"""Pure meaning of the data: frames and values in, frames and values out.

Nothing here reads a clock, a file or a socket; each table's frame schema stands in the module
that owns its meaning.
"""
