"""Reports on a folder of runs: configurations, statistics, comparisons, tables, figures."""
