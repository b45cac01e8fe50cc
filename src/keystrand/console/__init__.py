"""What a person sees in a browser: static files and live streams, read only."""
