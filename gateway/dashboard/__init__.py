"""The web page: its files are served as they are."""
