"""What plots draw and reports say: facts computed from the tables, and how sure one can be of them.

`evidence` is where to start: everything about one sweep, computed when asked for. `contrasts` sets several sweeps
against each other. Comparisons become verdicts in `verdicts` alone.
"""
