"""Many jobs, each of which prepares, trains, evaluates and exports one sequence, on one machine or on many."""
