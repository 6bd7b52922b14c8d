"""Joint targets that make a legged robot perform a reference motion in physics."""
