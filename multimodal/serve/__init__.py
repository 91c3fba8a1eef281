"""Search over HTTP.

1. ``server`` binds the port and runs the application, ``app`` puts it together; ``generations`` switches to another model.
2. ``limits`` lets a request in if there is room, and bounds its size and time.
3. ``body`` and ``values`` turn JSON or an upload into checked settings and raw values; no path and no address is opened.
4. ``batching`` encodes the values of requests that arrive together in one forward pass, and searches.
5. One file for each group of routes: ``search``, ``embed``, ``openai_form``, ``items``, ``explain``, ``metrics``.
"""
