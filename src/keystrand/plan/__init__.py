"""Which links of an estate need what: from sites, links, data classes and people to a decision per link that can be defended.

Pure functions of an `Estate` and a date. Nothing here opens a file, asks a clock or draws without a seed.
"""
