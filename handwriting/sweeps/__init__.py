"""Many runs: jobs, processes, Hydra's launchers, progress, search."""
