"""Files of other systems, read in a child process with limits."""
