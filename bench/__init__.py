"""treescan beside everything that people could use instead, on the same inputs in the same run.

    python -m bench                                   the table, the plots and docs/performance.md
    python -m pytest bench --benchmark-only           the same cases as pytest-benchmark timings
    python -m bench.gpu                               a GPU's times, where there is one

`cases` says what is compared, `peers` holds the others' side, `measure` times, `counts` has valgrind count,
`report` and `plots` show.
"""
