"""Map build functions over partitions: a plain loop by default, Ray when asked."""
