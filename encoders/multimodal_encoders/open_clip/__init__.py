"""The towers of open_clip, an image and a text encoder."""
