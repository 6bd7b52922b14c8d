"""Reinforcement learning in vectorised environments."""
