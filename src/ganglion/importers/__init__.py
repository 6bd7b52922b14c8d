"""Files of the original systems, read with suspicion: only what `ganglion data import` asks for."""
