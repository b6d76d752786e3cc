"""Names of what stage comparison writes, and words in it, for whoever reads it."""

FIGURES, PAGE = "compare.json", "compare.html"
NOT_FIT = "judge not fit here"
"""Said of clips about which the judge's answers mean nothing, in the place of figures."""
