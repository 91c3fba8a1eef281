"""``python -m multimodal``: the same as the command ``multimodal``."""

from multimodal.cli.main import main

if __name__ == "__main__":  # a process that it starts imports this module again
    raise SystemExit(main())
