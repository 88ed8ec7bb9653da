"""Hold the published methods, one folder each: all that one paper needs and no other."""
