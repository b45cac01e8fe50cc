"""The status page and its terminal view: what a person sees of one site. Reads the feed, decides nothing."""
