"""Statements about partitions, shown green or red; blocking where downstream would be wrong."""
