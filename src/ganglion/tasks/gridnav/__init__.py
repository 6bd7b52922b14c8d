"""Next moves on an occupancy grid by a recursive net, judged against exact shortest paths."""
