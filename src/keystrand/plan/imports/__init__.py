"""What other tools found, as facts of an estate: one small pure reader a format, from bytes to `Found`.

Each fact keeps its file, tool, version and date. What a tool did not look at stays unknown, and is never "no".
"""
