"""Ids that tables of the evaluation use beside those of conditions."""

CLEAN = "clean-held-out"
"""Row of the perfect crystals that were held out; `<CLEAN>-<space group>` are those of one space group."""
SHOWN = "@shown"
"""Ends the id of a row that counts only the zone axes which the article shows."""
