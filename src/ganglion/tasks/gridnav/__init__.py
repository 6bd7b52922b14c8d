"""Next move on an occupancy grid towards a goal, for every cell at once, by a recursive net."""
