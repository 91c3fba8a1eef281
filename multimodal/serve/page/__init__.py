"""The page for people: its content, style and scripts, and the server's part of it."""
