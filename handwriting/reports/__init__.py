"""What a folder of runs shows: groups, statistics, comparisons, tables, figures."""
