"""Fuel-optimal powered descent with a free final time."""
