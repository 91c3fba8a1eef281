"""``python -m multimodal``: the same as the command ``multimodal``."""

from multimodal.cli.main import main

raise SystemExit(main())
