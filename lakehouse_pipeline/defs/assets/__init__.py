"""The tables as assets, a module for each group; the key is the Iceberg identifier.

A body is: slice, build function, metadata. Add an asset when ``lake.tables`` gains a table.
"""
