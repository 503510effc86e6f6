"""One function a table: slice, read, pure function, write.

What a Dagster asset, the CLI and a test all call. The meaning of rows belongs to ``market``, how
they are stored to ``lake``; here stand only which slices are read for which slice that is written.
"""
