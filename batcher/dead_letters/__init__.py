"""Where refused records are kept."""
