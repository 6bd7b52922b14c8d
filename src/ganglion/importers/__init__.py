"""Files of other systems, read with suspicion in a child process with limits."""
