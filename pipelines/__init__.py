"""The wiring: how files become one graph, where tables live, the clock, the settings, the command
line.

What a request, a charge or an alert *means* does not belong here: that is in `assets/`, `sql/` and
`exports/`.
"""

import zoneinfo

# The zones of the pinned tzdata, not of the machine, which may be years behind: a local time is
# the same instant wherever the night runs.
zoneinfo.reset_tzpath(())
