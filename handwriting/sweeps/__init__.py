"""Many runs: jobs, processes, Hydra hooks, progress, search."""
