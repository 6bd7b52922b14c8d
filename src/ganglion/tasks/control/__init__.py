"""Controls for a dynamical system with bounded actuators, judged against the exact optimum."""
